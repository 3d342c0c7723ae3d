//! The work of a call, by its kind.

use std::sync::Arc;
use std::time::Duration;

use aion_manifest::ToolEntry;
use aion_syscall::{Limit, Reason, Refusal};
use aion_types::ErrorCode;
use serde_json::{Value, json};

use super::{Call, Done, Kernel};
use crate::plan::{Plan, Work};
use crate::{memory, models, tool_call};

impl Kernel {
    /// Does it. An error comes with what it has cost all the same.
    ///
    /// What waits for others is boxed: each call's task would be as large as the largest of them, and most calls are small.
    pub(super) async fn work(
        &self,
        call: &Call,
        plan: Plan,
        timeout: Duration,
    ) -> Result<Done, (Refusal, Limit)> {
        let nothing = |refusal: Refusal| (refusal, Limit::default());
        let done =
            |result: Value, used: Limit| Done { result, used, tokens_in: 0, tokens_out: 0, estimated: false };
        let free = |result: Value| done(result, Limit::default());
        match plan.work {
            Work::Tool(installed, arguments) => {
                let caller = tool_call::Caller {
                    host: &self.0.host,
                    servers: &self.0.servers,
                    classes: &self.0.classes,
                    wasm_runner: &self.0.wasm_runner,
                    tenant: call.caller.tenant(),
                    audit_id: &call.audit_id,
                };
                let called = Box::pin(caller.call(&installed, arguments, timeout));
                let result = match installed.tool.entry {
                    // Its process is this call's alone. A server serves others, and is told by its client.
                    ToolEntry::Exec(_) => tokio::select! {
                        result = called => result,
                        () = call.gone() => Err(tool_call::left(&installed.tool.name)),
                    },
                    _ => called.await,
                };
                let result = result.map_err(nothing)?;
                installed.check_output(&result).map_err(nothing)?;
                Ok(done(result, plan.price))
            }
            Work::ToolList => {
                let tools = self.0.tools.list(call.caller.tenant());
                let items: Vec<_> = tools
                    .iter()
                    .map(|tool| {
                        json!({
                            "name": tool.name, "version": tool.version, "description": tool.description,
                            "requires": tool.requires, "input": tool.input, "output": tool.output,
                        })
                    })
                    .collect();
                Ok(free(json!({"items": items})))
            }
            Work::Model(planned) => {
                let tenant = call.caller.tenant().as_str();
                let models = &self.0.models.models;
                let redactor = self.redactor(call.caller.tenant());
                let asked = models::ask(models, *planned, tenant, timeout, call.chunks.as_ref(), &redactor);
                let models::Said { body, used, tokens_in, tokens_out, estimated } = Box::pin(asked).await?;
                // A backend that counts more than the call could have used is not believed.
                let most = plan.most;
                let used = Limit {
                    usd_micros: used.usd_micros.min(most.usd_micros),
                    tokens: used.tokens.min(most.tokens),
                };
                let tokens_in = tokens_in.min(used.tokens);
                let tokens_out = tokens_out.min(used.tokens - tokens_in);
                Ok(Done { result: body, used, tokens_in, tokens_out, estimated })
            }
            Work::ModelList => {
                // Where they are is nobody's business but the operator's.
                let items: Vec<_> = self
                    .0
                    .models
                    .models
                    .list()
                    .iter()
                    .map(|model| {
                        json!({
                            "name": model.name, "aliases": model.aliases, "local": model.local, "kinds": model.kinds,
                            "context_tokens": model.context_tokens,
                        })
                    })
                    .collect();
                Ok(free(json!({"items": items})))
            }
            Work::Ask(question) => Box::pin(self.ask(call, question)).await.map(free).map_err(nothing),
            Work::Mail(mail) => Box::pin(self.mail(call, mail)).await.map(free).map_err(nothing),
            Work::File(file) => Box::pin(self.files(call, *file)).await.map(free).map_err(nothing),
            Work::Fetch(fetch) => Box::pin(self.fetch(call, *fetch)).await.map(free).map_err(nothing),
            work @ (Work::MemoryPut | Work::MemoryGet | Work::MemoryQuery | Work::MemoryDelete) => {
                self.memory(call, &work).await.map(free).map_err(nothing)
            }
        }
    }

    async fn memory(&self, call: &Call, work: &Work) -> Result<Value, Refusal> {
        let (Some(uri), Some(grants)) = (call.agent.clone(), call.grants.as_deref()) else {
            return Err(Refusal::field("agent_id", "whose memory is it? name an agent"));
        };
        let params = &call.request.params;
        let now = call.time_ns;
        // A key's row is in memory or one read away; a query reads many.
        match work {
            Work::MemoryGet => memory::get(&self.0.store, &uri, params, now),
            Work::MemoryPut => {
                memory::put(&self.0.store, &self.0.kept, &uri, &grants.spec.memory, params, now)
            }
            Work::MemoryDelete => memory::delete(&self.0.store, &uri, params),
            _ => {
                let (store, params) = (Arc::clone(&self.0.store), params.clone());
                let queried = tokio::task::spawn_blocking(move || memory::query(&store, &uri, &params, now));
                queried.await.unwrap_or_else(|error| {
                    Err(Refusal::new(
                        Reason::Internal,
                        ErrorCode::Internal,
                        format!("the query did not end: {error}"),
                    ))
                })
            }
        }
    }
}
