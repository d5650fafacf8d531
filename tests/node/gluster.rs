//! A real GlusterFS server: a machine of its own in the network of the node.
//!
//! Runs in the tests' process, as root.

use super::{Place, SERVER_ADDRESS, TestNode};
use testbed::machine::{Machine, Network, Recipe};

/// The programs it needs, for [`super::missing`].
pub const PROGRAMS: &[&str] = &["glusterd", "gluster", "mount.glusterfs", "ip"];

/// A glusterd with its volumes; all of them are gone with it.
#[derive(Debug)]
pub struct Gluster {
    /// Where it runs; bricks are below /brick.
    pub place: Place,
    _machine: Machine,
}

impl Gluster {
    /// A server with a volume, and a node in its network: the server, the volume's source, the node.
    pub fn with_node() -> (Self, String, TestNode) {
        let network = Network::new().unwrap();
        let server = Self::start(&network);
        let source = server.volume("gv0");
        (server, source, TestNode::start_in(&network))
    }

    /// Starts a server at [`SERVER_ADDRESS`] in `network`, without volumes.
    pub fn start(network: &Network) -> Self {
        // Bricks need trusted.* attributes, which a tmpfs has.
        let recipe = Recipe::userland().fuse().writable(["/var/lib/glusterd", "/var/log", "/run", "/tmp", "/brick"]);
        let machine = Machine::start(network, recipe).unwrap();
        let place = Place(machine.node().clone());
        // It refuses loopback addresses, hence one of our own; "replace" because another server may have added it.
        place.sh_ok(&format!("ip address replace {SERVER_ADDRESS}/32 dev lo"));
        // It returns from going to the background when it is ready.
        place.sh_ok("mkdir -p /var/log/glusterfs && exec glusterd >/run/glusterd.out 2>&1");
        Self { place, _machine: machine }
    }

    /// Creates and starts a volume of one brick; returns its source for mount: `address:/name`.
    pub fn volume(&self, name: &str) -> String {
        let brick = format!("{SERVER_ADDRESS}:/brick/{name}");
        self.place.sh_ok(&format!("gluster --mode=script volume create {name} {brick} force"));
        self.place.sh_ok(&format!("gluster --mode=script volume start {name}"));
        format!("{SERVER_ADDRESS}:/{name}")
    }
}
