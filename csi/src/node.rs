//! Volumes on this node. Each call is a request for the mounter, and nothing is remembered but the last answer about a volume, where
//! pods get events.
//!
//! A volume is mounted at its staging path, and shown at each pod's target; with `mode: pod`, and when it is in the pod's own specification,
//! it is mounted at the pod's target itself, and so is one with `mode: program`, which a program of the pod serves.

use crate::conditions::{Conditions, is_abnormal};
use crate::csi::node_server::Node;
use crate::csi::node_service_capability::rpc::Type as Can;
use crate::csi::node_service_capability::{Rpc, Type};
use crate::csi::volume_usage::Unit;
use crate::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeCondition, VolumeUsage,
};
use crate::errors::status;
use crate::log::outcome;
use crate::mounter::Mounter;
use crate::of_program::OfProgram;
use crate::places::{BadPath, Places};
use crate::volume::{Helper, Wanted, is_ephemeral, pod_of};
use api::message::{Bind, Call, Mount, Mounted, Unmounted};
use api::pod::PodName;
use api::request;
use api::volume::{Space, Stats, VolumeState};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub struct NodeService {
    /// The node's name.
    pub node_id: String,
    /// How many volumes there may be on it; 0: any number.
    pub max_volumes: u32,
    /// The paths that may be asked for.
    pub places: Places,
    /// Who does it.
    pub mounter: Mounter,
    /// Who has events made of what kubelet hears, if anybody.
    pub conditions: Option<Arc<Conditions>>,
}

/// What the driver can do beside publishing.
const CAPABILITIES: [Can; 5] = [
    Can::StageUnstageVolume,
    Can::GetVolumeStats,
    Can::VolumeCondition,
    Can::SingleNodeMultiWriter,
    Can::VolumeMountGroup,
];

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let NodeStageVolumeRequest {
            volume_id,
            staging_target_path: target,
            volume_capability,
            secrets,
            volume_context,
            ..
        } = request.into_inner();
        self.check(&volume_id, &target, "staging_target_path")?;
        if OfProgram::new(volume_capability.as_ref(), &volume_context)?.is_some() {
            // It is each pod's own.
            return Ok(Response::new(NodeStageVolumeResponse {}));
        }
        let wanted = Wanted::new(volume_capability, &volume_context)?;
        if wanted.helper == Helper::OfVolume {
            let read_only = wanted.read_only;
            let done = self.mount(wanted.request(target.clone(), read_only, secrets), None).await;
            outcome("staged", &volume_id, &target, done.map(|Mounted { already, .. }| already))?;
        }
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let NodeUnstageVolumeRequest { volume_id, staging_target_path: target } = request.into_inner();
        self.check(&volume_id, &target, "staging_target_path")?;
        // The directory is kubelet's, which made it.
        let done = self.unmount(&target, false).await;
        outcome("unstaged", &volume_id, &target, done)?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let NodePublishVolumeRequest {
            volume_id,
            staging_target_path: staged,
            target_path: target,
            volume_capability,
            readonly,
            secrets,
            volume_context,
            ..
        } = request.into_inner();
        self.check(&volume_id, &target, "target_path")?;
        if let Some(wanted) = OfProgram::new(volume_capability.as_ref(), &volume_context)? {
            let asked = Call::Program(wanted.request(target.clone(), readonly));
            let done = self.mounter.ask(&asked).await.map_err(status);
            outcome("published", &volume_id, &target, done.map(|Mounted { already, .. }| already))?;
            return Ok(Response::new(NodePublishVolumeResponse {}));
        }
        let wanted = Wanted::new(volume_capability, &volume_context)?;
        let (read_only, pod) = (readonly || wanted.read_only, pod_of(&volume_context));
        let done = match wanted.helper {
            Helper::OfPod => self.mount(wanted.request(target.clone(), read_only, secrets), pod).await,
            Helper::OfVolume if staged.is_empty() && !is_ephemeral(&volume_context) => {
                Err(Status::failed_precondition("staging_target_path is missing: the volume must be staged first"))
            }
            Helper::OfVolume => {
                self.places.check(&staged, "staging_target_path")?;
                let (source, target) = (staged, target.clone());
                let bind = Bind { source, target, read_only, alone: wanted.alone, make_target: true, pod };
                match self.mounter.ask(&Call::Bind(bind)).await.map_err(status) {
                    Err(error) if error.code() == Code::NotFound => {
                        Err(Status::failed_precondition(format!("the volume is not staged: {}", error.message())))
                    }
                    done => done,
                }
            }
        };
        outcome("published", &volume_id, &target, done.map(|Mounted { already, .. }| already))?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let NodeUnpublishVolumeRequest { volume_id, target_path: target } = request.into_inner();
        self.check(&volume_id, &target, "target_path")?;
        let done = self.unmount(&target, true).await;
        if let Some(conditions) = self.conditions.as_ref().filter(|_| done.is_ok()) {
            conditions.forget(&target);
        }
        outcome("unpublished", &volume_id, &target, done)?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let NodeGetVolumeStatsRequest { volume_id, volume_path: target, .. } = request.into_inner();
        if volume_id.is_empty() {
            return Err(BadPath::Missing("volume_id").into());
        }
        if target.is_empty() {
            return Err(BadPath::Missing("volume_path").into());
        }
        // A path that no volume can be at is one where none is.
        if let Err(error) = self.places.check(&target, "volume_path") {
            return Err(Status::not_found(error.to_string()));
        }
        let (place, uid) = (target.clone(), self.places.pod_of(&target).map(str::to_owned));
        let stats: Stats = self.mounter.ask(&Call::Stats { target }).await.map_err(status)?;
        let (usage, condition) = (stats.space.map(usage).unwrap_or_default(), condition(&stats));
        if let (Some(conditions), Some(uid)) = (&self.conditions, uid) {
            conditions.say(&place, &uid, &stats, &condition.message);
        }
        Ok(Response::new(NodeGetVolumeStatsResponse { usage, volume_condition: Some(condition) }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |can: Can| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: can.into() })) };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: CAPABILITIES.map(capability).into() }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let (node_id, max_volumes_per_node) = (self.node_id.clone(), self.max_volumes.into());
        Ok(Response::new(NodeGetInfoResponse { node_id, max_volumes_per_node }))
    }
}

impl NodeService {
    fn check(&self, volume_id: &str, path: &str, field: &'static str) -> Result<(), BadPath> {
        if volume_id.is_empty() {
            return Err(BadPath::Missing("volume_id"));
        }
        self.places.check(path, field)
    }

    /// Mounts a volume unless it is there already.
    async fn mount(&self, request: request::Request, pod: Option<PodName>) -> Result<Mounted, Status> {
        // Kubelet would say no more than that the time is over: the mounter has the helper's words.
        let ready_within = Some(self.mounter.mount_timeout().as_secs());
        let asked = Call::Mount(Mount { request, unless_mounted: true, make_target: true, ready_within, pod });
        self.mounter.ask(&asked).await.map_err(status)
    }

    /// Takes a volume away from a place; whether it was there.
    async fn unmount(&self, target: &str, remove_target: bool) -> Result<bool, Status> {
        let asked = Call::Unmount { target: target.to_owned(), remove_target };
        let Unmounted { was_mounted } = self.mounter.ask(&asked).await.map_err(status)?;
        Ok(!was_mounted)
    }
}

fn usage(space: Space) -> Vec<VolumeUsage> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let of = |total: u64, free: u64, available: u64, unit: Unit| VolumeUsage {
        total: number(total),
        used: number(total.saturating_sub(free)),
        available: number(available),
        unit: unit.into(),
    };
    let bytes = of(space.total, space.free, space.available, Unit::Bytes);
    // Many filesystems count no inodes.
    let inodes = (space.files > 0).then(|| of(space.files, space.files_free, space.files_free, Unit::Inodes));
    [bytes].into_iter().chain(inodes).collect()
}

fn condition(stats: &Stats) -> VolumeCondition {
    let abnormal = is_abnormal(stats.state);
    let mut message = match stats.state {
        VolumeState::Dead => "the helper has ended: every access fails until a fresh one serves the volume".to_owned(),
        VolumeState::Hung => "the volume does not answer".to_owned(),
        VolumeState::Waiting => "no program of the pod serves the volume".to_owned(),
        _ => "the volume is served".to_owned(),
    };
    if let Some(more) = &stats.note {
        message = format!("{message}; {more}");
    }
    match stats.space {
        Some(space) if abnormal => message = format!("{message}; its space was seen {} s ago", space.age),
        None => message = format!("{message}; its space is not known"),
        Some(_) => {}
    }
    VolumeCondition { abnormal, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_volume_is() {
        let space = Space { total: 100, free: 60, available: 50, files: 0, files_free: 0, age: 7 };
        let stats = |state, space| Stats { state, waiting: None, hung_since: None, note: None, space, heals: 0 };
        assert!(!condition(&stats(VolumeState::Mounted, Some(space))).abnormal);
        let hung = condition(&stats(VolumeState::Hung, Some(space)));
        assert!(hung.abnormal && hung.message.contains("7 s ago"), "{}", hung.message);
        let dead = Stats { note: Some("not healed: why".into()), ..stats(VolumeState::Dead, None) };
        assert!(condition(&dead).abnormal && condition(&dead).message.contains("not healed: why"));
        let [bytes] = usage(space).try_into().unwrap();
        assert_eq!((bytes.total, bytes.used, bytes.available), (100, 40, 50));
        assert_eq!(usage(Space { files: 5, files_free: 2, ..space }).len(), 2);
        assert_eq!(usage(Space { total: u64::MAX, ..space })[0].total, i64::MAX);
    }
}
