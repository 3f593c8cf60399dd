//! SystemService.

use tonic::{Request, Response, Status};

use crate::{
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::v1::{self, system_service_server::SystemService},
    registry::Registry,
    telemetry::logging,
};

use super::status;

/// The service over its handles.
#[derive(Clone)]
pub struct SystemApi {
    /// Everything that does not change while the server runs.
    pub info: v1::GetServerInfoResponse,
    /// What `live` means.
    pub registry: Registry,
}

#[tonic::async_trait]
impl SystemService for SystemApi {
    async fn get_server_info(
        &self,
        _request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let mut info = self.info.clone();
        if let Ok(live) = self
            .registry
            .version(&VersionName::alias(DEFAULT_MODEL, LIVE))
            .await
        {
            info.live_model = live.name;
        }
        Ok(Response::new(info))
    }

    async fn get_log_level(
        &self,
        _request: Request<v1::GetLogLevelRequest>,
    ) -> Result<Response<v1::GetLogLevelResponse>, Status> {
        let directives = logging::filter();
        let directives =
            directives.ok_or_else(|| status::from_logging(&logging::Error::NotInitialized))?;
        Ok(Response::new(v1::GetLogLevelResponse { directives }))
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        let directives = request.into_inner().directives.trim().to_owned();
        let previous = logging::set_filter(&directives);
        let previous = previous.map_err(|error| status::from_logging(&error))?;
        // Not at INFO, which somebody may just have turned off: who reads the log wonders why it falls silent.
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
