//! SystemService.

use tonic::{Request, Response, Status};

use super::disk_use::DiskUseReader;
use crate::{
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::v1::{self, system_service_server::SystemService},
    registry::Registry,
    telemetry::logging,
};

#[derive(Clone)]
pub(crate) struct SystemApi {
    /// The response of GetServerInfo except for the live model and the use of the disk.
    pub(crate) info: v1::GetServerInfoResponse,
    pub(crate) registry: Registry,
    pub(crate) disk: DiskUseReader,
}

#[tonic::async_trait]
impl SystemService for SystemApi {
    async fn get_server_info(
        &self,
        _request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let mut info = self.info.clone();
        let live = VersionName::alias(DEFAULT_MODEL, LIVE);
        if let Ok(live) = self.registry.version(&live).await {
            info.live_model = live.name;
        }
        info.disk = Some(self.disk.read().await?);
        Ok(Response::new(info))
    }

    async fn get_log_level(
        &self,
        _request: Request<v1::GetLogLevelRequest>,
    ) -> Result<Response<v1::GetLogLevelResponse>, Status> {
        let directives = logging::filter().ok_or(logging::Error::NotInitialized)?;
        Ok(Response::new(v1::GetLogLevelResponse { directives }))
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        let directives = request.into_inner().directives.trim().to_owned();
        let previous = logging::set_filter(&directives)?;
        // At WARN, because the new filter may exclude INFO, and the log should explain the change.
        tracing::warn!(
            from = previous,
            to = directives,
            "the log filter was changed"
        );
        Ok(Response::new(v1::SetLogLevelResponse {
            directives,
            previous,
        }))
    }
}
