//! A node with a mounter and the driver, and the calls that kubelet makes.
//!
//! Runs in the tests' process. The driver is a process of a user of its own in a room of its own, which shows of the node what its
//! container would: two directories of kubelet's and the mounter's door.

use crate::calls;
use crate::node::mounter::Mounter;
use crate::node::{CSI_DOOR, Place, TestNode, helpers};
use api::client::Client;
use api::volume::VolumeView;
use hostmount_csi::csi::controller_client::ControllerClient;
use hostmount_csi::csi::identity_client::IdentityClient;
use hostmount_csi::csi::node_client::NodeClient;
use hostmount_csi::csi::volume_capability::access_mode::Mode;
use hostmount_csi::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use hostmount_csi::csi::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest, VolumeCapability,
};
use hostmount_csi::pluginregistration::registration_client::RegistrationClient;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};
use testbed::machine::{Propagation, Recipe, Room};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// The driver's directories on the node.
pub(crate) const DIRECTORIES: [&str; 2] =
    ["/var/lib/kubelet/plugins/hostmount.csi", "/var/lib/kubelet/plugins_registry/hostmount.csi"];
/// Where kubelet calls it.
pub(crate) const CALLS: &str = "/var/lib/kubelet/plugins/hostmount.csi/csi.sock";
/// Where kubelet asks about it.
pub(crate) const REGISTRATION: &str = "/var/lib/kubelet/plugins_registry/hostmount.csi/reg.sock";
/// Types of files of the container's, and unknown ones, are open for these sources.
const POLICY: &str = "
[policy.csi.filesystem]
    bindfs = { sources = ['/srv/**'] }
    fault = { sources = ['**'] }
    memfs = { sources = ['**'] }
    nosuch = { sources = ['**'] }
    recorder = { sources = ['**'], options = ['*'] }";
/// The driver's user.
const USER: &str = "65532";

/// A node with a mounter and the driver.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Where the driver runs.
    pub(crate) room: Place,
    /// The driver.
    pub(crate) csi: Option<Mounter>,
    /// The mounter.
    pub(crate) mounter: Option<Mounter>,
    /// The node.
    pub(crate) test: TestNode,
}

impl Driver {
    /// Starts one, with a source for bindfs.
    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// Starts one whose mounter has these lines in its configuration.
    pub(crate) fn with_config(config: &str) -> Self {
        Self::on(TestNode::start(), config)
    }

    /// The same on a node that is there.
    pub(crate) fn on(test: TestNode, config: &str) -> Self {
        let door =
            format!("{config}\n{POLICY}\n[doors]\ncsi = {{ socket = \"{CSI_DOOR}/mounter.sock\", uid = {USER} }}\n");
        test.container.visit(|| {
            std::fs::create_dir_all("/etc/hostmount").unwrap();
            std::fs::write("/etc/hostmount/config.toml", door).unwrap();
        });
        test.container.sh_ok(
            "mount -t tmpfs srv /srv && mkdir /srv/source && echo content >/srv/source/f && chmod -R a+rwX /srv",
        );
        for directory in DIRECTORIES {
            test.node.sh_ok(&format!("mkdir -p {directory} && chown {USER} {directory}"));
        }
        let recipe = Recipe::userland().without(helpers()).read_only().writable(["/tmp", "/run"]);
        let shown = DIRECTORIES.into_iter().fold(recipe, |recipe, of| recipe.from_node(of, of, Propagation::None));
        let shown = shown.share("csi", "/run/hostmount-csi");
        let room = test.room(shown.bind(env!("CARGO_BIN_EXE_hostmount-csi"), "/usr/local/bin/hostmount-csi"));
        let mounter = Some(test.start_mounter(&[], &[]));
        let mut driver = Self { room, csi: None, mounter, test };
        driver.start_csi();
        driver
    }

    /// Starts the driver, as its container would.
    pub(crate) fn start_csi(&mut self) {
        self.start_csi_with(&[]);
    }

    /// The same with more arguments.
    pub(crate) fn start_csi_with(&mut self, arguments: &[&str]) {
        self.start_csi_in(arguments, &[]);
    }

    /// The same with more variables in its environment.
    pub(crate) fn start_csi_in(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let mut command = Room::command("setpriv");
        let user = ["--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs", "--bounding-set=-all"];
        command.args(user).args(["/usr/local/bin/hostmount-csi", "--node-id", "node-1"]).args(arguments);
        command.envs(environment.iter().copied());
        self.csi = None;
        self.csi = Some(Mounter::start_program(&self.room, command, "csi.ready"));
    }

    /// Starts the mounter, in the place of the one before.
    pub(crate) fn start_mounter(&mut self) {
        self.mounter = None;
        self.mounter = Some(self.test.start_mounter(&[], &[]));
    }

    /// The mounter's words.
    pub(crate) fn mounter(&self) -> &Mounter {
        self.mounter.as_ref().unwrap()
    }

    /// Makes a call at one of the driver's sockets, as kubelet does.
    pub(crate) fn call<T, F>(&self, socket: &str, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        calls::call(&self.test.node, socket, call)
    }

    /// A call of the node service.
    pub(crate) fn node<T, F>(&self, call: impl FnOnce(NodeClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(CALLS, |channel| call(NodeClient::new(channel)))
    }

    /// A call of the controller service.
    pub(crate) fn controller<T, F>(&self, call: impl FnOnce(ControllerClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(CALLS, |channel| call(ControllerClient::new(channel)))
    }

    /// A call of the identity service.
    pub(crate) fn identity<T, F>(&self, call: impl FnOnce(IdentityClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(CALLS, |channel| call(IdentityClient::new(channel)))
    }

    /// A call of the registration service.
    pub(crate) fn registration<T, F>(&self, call: impl FnOnce(RegistrationClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(REGISTRATION, |channel| call(RegistrationClient::new(channel)))
    }

    /// Makes the directories that kubelet makes for a volume, and stages it.
    pub(crate) fn stage(&self, volume: &Volume) -> Result<(), Status> {
        // Kubelet makes the last one, too; on a volume that is dead just now mkdir(1) would fail.
        self.test.node.sh_ok(&format!("mkdir -p $(dirname {})", volume.staged()));
        let request = volume.to_stage();
        self.node(|mut node| async move { node.node_stage_volume(request).await }).map(drop)
    }

    /// Unstages it.
    pub(crate) fn unstage(&self, volume: &Volume) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest { volume_id: volume.id.clone(), staging_target_path: volume.staged() };
        self.node(|mut node| async move { node.node_unstage_volume(request).await }).map(drop)
    }

    /// Publishes it for a pod, and makes the directories that kubelet makes first.
    pub(crate) fn publish(&self, volume: &Volume, pod: &str) -> Result<(), Status> {
        self.publish_as(volume.to_publish(pod))
    }

    /// The same with any request.
    pub(crate) fn publish_as(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.test.node.sh_ok(&format!("mkdir -p $(dirname {})", request.target_path));
        self.node(|mut node| async move { node.node_publish_volume(request).await }).map(drop)
    }

    /// Unpublishes it.
    pub(crate) fn unpublish(&self, volume: &Volume, pod: &str) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest { volume_id: volume.id.clone(), target_path: volume.target(pod) };
        self.node(|mut node| async move { node.node_unpublish_volume(request).await }).map(drop)
    }

    /// How it is, at a pod's target.
    pub(crate) fn stats(&self, volume: &Volume, pod: &str) -> Result<NodeGetVolumeStatsResponse, Status> {
        let (volume_id, volume_path) = (volume.id.clone(), volume.target(pod));
        let request = NodeGetVolumeStatsRequest { volume_id, volume_path, ..Default::default() };
        self.node(|mut node| async move { node.node_get_volume_stats(request).await })
    }

    /// Whether the driver can work.
    pub(crate) fn ready(&self) -> bool {
        self.identity(|mut identity| async move { identity.probe(ProbeRequest {}).await }).unwrap().ready.unwrap()
    }

    /// All volumes that the mounter knows.
    pub(crate) fn list(&self) -> Vec<VolumeView> {
        self.test.node.visit(|| Client::at(crate::node::mounter::SOCKET).list()).unwrap()
    }

    /// Waits until nothing of any volume is left on the node.
    #[track_caller]
    pub(crate) fn wait_until_nothing_is_left(&self, helper: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let left = (self.list(), self.test.node.fuse_mounts(), self.test.pids_of(helper));
            if left.0.is_empty() && left.1.is_empty() && left.2.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A volume as Kubernetes has it.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// Its handle.
    pub(crate) id: String,
    /// Its attributes.
    pub(crate) context: HashMap<String, String>,
    /// How it is to be used.
    pub(crate) mode: Mode,
    /// What else its capability says.
    pub(crate) mount: MountVolume,
    /// Its secrets.
    pub(crate) secrets: HashMap<String, String>,
}

impl Volume {
    /// One of bindfs.
    pub(crate) fn bindfs(id: &str) -> Self {
        Self::of(id, &[("type", "bindfs"), ("source", "/srv/source")])
    }

    /// One with these attributes.
    pub(crate) fn of(id: &str, context: &[(&str, &str)]) -> Self {
        let context = strings(context);
        let (id, mode) = (id.to_owned(), Mode::MultiNodeMultiWriter);
        Self { id, context, mode, mount: MountVolume::default(), secrets: HashMap::new() }
    }

    /// The same as it stands in a pod's own specification.
    pub(crate) fn ephemeral(mut self) -> Self {
        self.context.extend(strings(&[("csi.storage.k8s.io/ephemeral", "true"), ("csi.storage.k8s.io/pod.name", "p")]));
        Self { mode: Mode::SingleNodeWriter, ..self }
    }

    /// Where kubelet has it staged.
    pub(crate) fn staged(&self) -> String {
        format!("/var/lib/kubelet/plugins/kubernetes.io/csi/hostmount.csi/{}/globalmount", self.id)
    }

    /// Where a pod has it.
    pub(crate) fn target(&self, pod: &str) -> String {
        format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~csi/{}/mount", self.id)
    }

    /// Its capability.
    pub(crate) fn capability(&self) -> Option<VolumeCapability> {
        let access_mode = Some(AccessMode { mode: self.mode.into() });
        Some(VolumeCapability { access_mode, access_type: Some(AccessType::Mount(self.mount.clone())) })
    }

    /// The call that stages it.
    pub(crate) fn to_stage(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.staged(),
            volume_capability: self.capability(),
            secrets: self.secrets.clone(),
            volume_context: self.context.clone(),
            ..Default::default()
        }
    }

    /// The call that publishes it.
    pub(crate) fn to_publish(&self, pod: &str) -> NodePublishVolumeRequest {
        let ephemeral = self.context.contains_key("csi.storage.k8s.io/ephemeral");
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: if ephemeral { String::new() } else { self.staged() },
            target_path: self.target(pod),
            volume_capability: self.capability(),
            secrets: self.secrets.clone(),
            volume_context: self.context.clone(),
            ..Default::default()
        }
    }
}

pub(crate) fn strings(of: &[(&str, &str)]) -> HashMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// It failed with this code and these words.
#[track_caller]
pub(crate) fn fails<T: Debug>(done: Result<T, Status>, code: tonic::Code, words: &str) {
    let error = done.unwrap_err();
    assert!(error.code() == code && error.message().contains(words), "{words:?}: {error:?}");
}
