//! Which driver this is, and whether it can work.

use crate::csi::identity_server::Identity;
use crate::csi::plugin_capability::service::Type as Kind;
use crate::csi::plugin_capability::{Service, Type};
use crate::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use crate::mounter::Mounter;
use api::exit::chain;
use api::message::Call;
use api::volume::VolumeView;
use tonic::{Request, Response, Status};
use tracing::warn;

/// The service.
#[derive(Debug, Clone)]
pub struct IdentityService {
    /// The driver's name.
    pub name: String,
    /// The mounter, whose health is the driver's.
    pub mounter: Mounter,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let vendor_version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetPluginInfoResponse { name: self.name.clone(), vendor_version, ..Default::default() }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = Type::Service(Service { r#type: Kind::ControllerService.into() });
        let capabilities = vec![PluginCapability { r#type: Some(service) }];
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let volumes = self.mounter.ask::<Vec<VolumeView>>(&Call::List).await;
        if let Err(error) = &volumes {
            warn!(event = "csi.not-ready", "{}", chain(error));
        }
        Ok(Response::new(ProbeResponse { ready: Some(volumes.is_ok()) }))
    }
}
