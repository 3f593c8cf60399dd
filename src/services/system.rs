//! SystemService.

use tonic::{Request, Response, Status};

use crate::{
    names::VersionName,
    proto::v1::{self, system_service_server::SystemService},
    registry::{DEFAULT_MODEL, LIVE, Registry},
};

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
}
