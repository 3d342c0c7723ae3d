//! SyscallService for those who come over TCP: who calls, the door has found out.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::syscall_service_server::{SyscallService, SyscallServiceServer};
use aion_kernel::{Caller, Kernel};
use aion_syscall::Refusal;
use aion_types::ErrorCode;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::kernel_service::{MAX_ANSWER, MAX_CALL, Parts, invoke, invoke_stream, trace};
use crate::problem::Problem;

#[derive(Clone)]
struct OverTcp(Arc<Core>);

impl OverTcp {
    fn admit<R>(&self, request: Request<R>) -> Result<(Kernel, Caller, R), Status> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Problem::new(ErrorCode::PermissionDenied, "no door let this request in").into());
        };
        Ok((self.0.kernel()?.clone(), caller, request.into_inner()))
    }
}

#[tonic::async_trait]
impl SyscallService for OverTcp {
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

/// What answers behind the door.
pub(crate) fn routes(core: Arc<Core>) -> Routes {
    let service = SyscallServiceServer::new(OverTcp(core))
        .max_decoding_message_size(MAX_CALL)
        .max_encoding_message_size(MAX_ANSWER);
    Routes::new(service)
}

/// A refusal of the door, with its details.
pub(crate) fn refuse(refusal: Refusal) -> aion_http::Response {
    Status::from(Problem::from(refusal)).into_http()
}
