//! SyscallService, for three kinds of callers: operators, agents on their own sockets, and who comes over TCP. What differs is who
//! the caller is; a door has found that out before a request comes here.

use std::pin::Pin;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::syscall_service_server::{SyscallService, SyscallServiceServer};
use aion_kernel::{Caller, Kernel, Outcome as CallOutcome};
use aion_syscall::{MAX_BODY, Reason, Refusal, Request as Syscall};
use aion_tasks::Visitor;
use aion_types::ErrorCode;
use futures::{Stream, StreamExt as _, stream};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::http_backend::ForHttp;
use crate::problem::Problem;
use crate::service::Services;
use crate::stage::Action;

/// A call of an agent, with its parameters; and its answer.
const MAX_CALL: usize = 5 << 20;
const MAX_ANSWER: usize = 24 << 20;
/// Parts of an answer that wait for a slow client.
const AHEAD: usize = 64;

type Parts = Pin<Box<dyn Stream<Item = Result<api::SyscallPart, Status>> + Send>>;

/// A request of the contract, from its message.
fn read(request: api::SyscallRequest) -> Result<Syscall, Refusal> {
    if request.params_json.len() > MAX_BODY {
        let message = format!("params_json has more than {MAX_BODY} bytes");
        return Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("params_json"));
    }
    let params: Value = match request.params_json.as_str() {
        "" => json!({}),
        text => serde_json::from_str(text)
            .map_err(|error| Refusal::field("params_json", format!("it is not JSON: {error}")))?,
    };
    let mut budget = Map::new();
    if let Some(usd) = request.usd_max {
        budget.insert("usd_max".to_owned(), json!(usd));
    }
    if let Some(tokens) = request.tokens_max {
        budget.insert("tokens_max".to_owned(), json!(tokens));
    }
    if let Some(ms) = request.latency_ms {
        budget.insert("latency_ms".to_owned(), json!(ms));
    }
    let body = json!({
        "syscall": request.syscall, "agent_id": request.agent, "caps_required": request.caps_required,
        "context": {"task_id": request.task_id, "trace_id": request.trace_id}, "params": params, "budget": budget,
    });
    Syscall::from_value(body, None)
}

fn told(outcome: CallOutcome) -> api::SyscallAnswer {
    let CallOutcome { answer, refusal } = outcome;
    let error = refusal.map(|refusal| api::SyscallError {
        code: refusal.code.as_str().to_owned(),
        message: refusal.message,
        field: refusal.field,
        rule: refusal.rule,
        hint: refusal.hint,
        retry_after: refusal.retry_after_ms.map(|ms| prost_types::Duration {
            seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
        }),
    });
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    api::SyscallAnswer {
        status: word(json!(answer.status)),
        result_json: answer.result.to_string(),
        error,
        usage: Some(api::SyscallUsage {
            latency_ms: answer.usage.latency_ms,
            cost_usd: answer.usage.cost_usd,
            tokens_in: answer.usage.tokens_in,
            tokens_out: answer.usage.tokens_out,
            estimated: answer.usage.estimated,
        }),
        engine_kind: word(json!(answer.engine.kind)),
        engine_name: answer.engine.name,
        audit_id: answer.audit_id,
    }
}

/// The caller's place in a trace, as W3C's header tells it.
pub(crate) fn trace<R>(request: &Request<R>) -> Option<String> {
    request.metadata().get("traceparent")?.to_str().ok().map(str::to_owned)
}

/// Makes a call for a caller that a door has let in.
async fn invoke(
    kernel: &Kernel,
    caller: Caller,
    trace: Option<String>,
    request: api::SyscallRequest,
) -> api::SyscallAnswer {
    let name = request.syscall.clone();
    told(match read(request) {
        Ok(call) => kernel.invoke(caller, call.within(trace.as_deref())).await,
        Err(refusal) => kernel.refused(&caller, &name, refusal).await,
    })
}

/// As [`invoke`], in parts.
fn invoke_stream(
    kernel: &Kernel,
    caller: Caller,
    trace: Option<String>,
    request: api::SyscallRequest,
) -> Parts {
    use api::syscall_part::Kind;
    let kernel = kernel.clone();
    let name = request.syscall.clone();
    let call = match read(request) {
        Ok(call) => call.within(trace.as_deref()),
        Err(refusal) => {
            return Box::pin(stream::once(async move {
                let outcome = kernel.refused(&caller, &name, refusal).await;
                Ok(api::SyscallPart { kind: Some(Kind::Answer(told(outcome))) })
            }));
        }
    };
    let (send, receive) = mpsc::channel(AHEAD);
    let ending = tokio::spawn(async move { kernel.invoke_stream(caller, call, send).await });
    let chunks = tokio_stream::wrappers::ReceiverStream::new(receive)
        .map(|chunk: Value| Ok(api::SyscallPart { kind: Some(Kind::ChunkJson(chunk.to_string())) }));
    let last = stream::once(async move {
        match ending.await {
            Ok(outcome) => Ok(api::SyscallPart { kind: Some(Kind::Answer(told(outcome))) }),
            Err(_) => Err(Status::internal("the call did not run to its end")),
        }
    });
    Box::pin(chunks.chain(last))
}

/// Behind a door that has left in the request's extensions who calls.
#[derive(Clone)]
struct Door {
    core: Arc<Core>,
    who: fn(&http::Extensions) -> Option<Caller>,
}

impl Door {
    fn server(core: &Arc<Core>, who: fn(&http::Extensions) -> Option<Caller>) -> SyscallServiceServer<Self> {
        SyscallServiceServer::new(Self { core: Arc::clone(core), who })
            .max_decoding_message_size(MAX_CALL)
            .max_encoding_message_size(MAX_ANSWER)
    }

    fn admit<R>(&self, request: Request<R>) -> Result<(Kernel, Caller, R), Status> {
        let Some(caller) = (self.who)(request.extensions()) else {
            return Err(Problem::new(ErrorCode::PermissionDenied, "no door let this request in").into());
        };
        Ok((self.core.kernel()?.clone(), caller, request.into_inner()))
    }
}

#[tonic::async_trait]
impl SyscallService for Door {
    type InvokeStreamStream = Parts;

    async fn invoke(
        &self,
        request: Request<api::SyscallRequest>,
    ) -> Result<Response<api::SyscallAnswer>, Status> {
        let trace = trace(&request);
        let (kernel, caller, request) = self.admit(request)?;
        Ok(Response::new(invoke(&kernel, caller, trace, request).await))
    }

    async fn invoke_stream(
        &self,
        request: Request<api::SyscallRequest>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        let trace = trace(&request);
        let (kernel, caller, request) = self.admit(request)?;
        Ok(Response::new(invoke_stream(&kernel, caller, trace, request)))
    }
}

/// On an agent's own socket the caller is who the socket belongs to.
fn visitor(extensions: &http::Extensions) -> Option<Caller> {
    let Visitor { tenant, agent, task } = extensions.get::<Visitor>()?.clone();
    Some(Caller::Agent { tenant, name: agent, task })
}

impl Core {
    /// What agents find on their sockets besides the tasks.
    pub(crate) fn door_routes(self: &Arc<Self>) -> Routes {
        let service = Door::server(self, visitor);
        // HTTP for programs that bring no gRPC.
        match self.kernel() {
            Ok(kernel) => {
                let backend = Arc::new(ForHttp::new(Arc::clone(self)));
                Routes::from(aion_http::own_routes(kernel.clone(), backend, visitor)).add_service(service)
            }
            Err(_) => Routes::new(service),
        }
    }

    /// What is behind the door for gRPC over TCP.
    pub(crate) fn tcp_routes(self: &Arc<Self>) -> Routes {
        Routes::new(Door::server(self, |extensions| extensions.get::<Caller>().cloned()))
    }
}

/// What the door for gRPC over TCP refuses, with its details.
pub(crate) fn refuse(refusal: Refusal) -> aion_http::Response {
    Status::from(Problem::from(refusal)).into_http()
}

#[tonic::async_trait]
impl SyscallService for Services {
    type InvokeStreamStream = Parts;

    async fn invoke(
        &self,
        request: Request<api::SyscallRequest>,
    ) -> Result<Response<api::SyscallAnswer>, Status> {
        let trace = trace(&request);
        let (principal, request) = self.admit(request, Action::InvokeSyscall).await?.into_parts();
        let caller = Core::caller_of(&principal);
        Ok(Response::new(invoke(self.0.kernel()?, caller, trace, request).await))
    }

    async fn invoke_stream(
        &self,
        request: Request<api::SyscallRequest>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        let trace = trace(&request);
        let (principal, request) = self.admit(request, Action::InvokeSyscall).await?.into_parts();
        let caller = Core::caller_of(&principal);
        Ok(Response::new(invoke_stream(self.0.kernel()?, caller, trace, request)))
    }
}
