//! How kubelet gets to know the driver.

use crate::pluginregistration::registration_server::Registration;
use crate::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use api::shown::shown_lines;
use std::sync::Arc;
use tokio::sync::Notify;
use tonic::{Request, Response, Status};
use tracing::{error, info};

/// What kubelet calls drivers of this kind.
const KIND: &str = "CSIPlugin";
/// The versions of CSI, as kubelet wants them: the first digit is what counts.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// The service.
#[derive(Debug, Clone)]
pub struct RegistrationService {
    /// The driver's name.
    pub name: String,
    /// Its socket, as a path on the node.
    pub endpoint: String,
    /// Who waits for kubelet to have registered it.
    pub registered: Arc<Notify>,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: KIND.to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: VERSIONS.map(str::to_owned).into(),
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = status.into_inner();
        if plugin_registered {
            info!(event = "csi.registered", "kubelet has registered the driver");
            self.registered.notify_one();
        } else {
            // It tries again by itself.
            error!(event = "csi.not-registered", "kubelet has not registered the driver: {}", shown_lines(&error));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
