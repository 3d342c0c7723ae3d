//! BackupService: one archive of the state, in parts.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::backup_service_server::BackupService;
use tonic::{Request, Response, Status};

use crate::logs::Answers;
use crate::service::Services;
use crate::stage::Action;

#[tonic::async_trait]
impl BackupService for Services {
    type CreateStream = Answers<api::BackupPart>;

    async fn create(
        &self,
        request: Request<api::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateStream>, Status> {
        let (principal, request) = self.admit(request, Action::CreateBackup).await?.into_parts();
        Ok(Response::new(Arc::clone(&self.0).create_backup(principal, request).await?))
    }
}
