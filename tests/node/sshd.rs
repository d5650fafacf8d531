//! A real SSH server with SFTP: a machine of its own in the network of the node.
//!
//! Runs in the tests' process, as root. Clients are known by their key, the server by its own; there is no password.

use super::{Place, SERVER_ADDRESS, TestNode};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use testbed::machine::{Machine, Network, Process, Recipe, Room};

/// The programs it needs, for [`super::missing`].
pub const PROGRAMS: &[&str] = &["sshd", "ssh", "ssh-keygen", "ip"];

/// The port it listens on.
pub const PORT: u16 = 2222;

/// A running sshd whose root user has the directory /srv/export.
#[derive(Debug)]
pub struct Sshd {
    /// Where it runs.
    pub place: Place,
    client_key: String,
    known_hosts: String,
    _process: Process,
    _machine: Machine,
}

impl Sshd {
    /// A server, and a node in its network whose container has the key.
    pub fn with_node() -> (Self, TestNode) {
        let network = Network::new().unwrap();
        let server = Self::start(&network);
        let test = TestNode::start_in(&network);
        server.install_client(&test.container);
        (server, test)
    }

    /// Starts a server at [`SERVER_ADDRESS`] in `network`; returns when it listens.
    pub fn start(network: &Network) -> Self {
        let recipe = Recipe::userland().writable(["/run", "/tmp", "/srv", "/root", "/etc/ssh"]);
        let machine = Machine::start(network, recipe).unwrap();
        let place = Place(machine.node().clone());
        // Where sshd finds SELinux enforced it wants to be in a domain of its own, which init would have put it in.
        place.sh_ok(&format!(
            "set -e
            ! mountpoint -q /sys/fs/selinux || umount /sys/fs/selinux
            ip address replace {SERVER_ADDRESS}/32 dev lo
            mkdir -p /run/sshd /srv/export
            mkdir -m 700 /root/.ssh && chmod 700 /root
            ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host
            ssh-keygen -q -t ed25519 -N '' -f /run/client
            cp /run/client.pub /root/.ssh/authorized_keys"
        ));
        let config = format!(
            "ListenAddress {SERVER_ADDRESS}:{PORT}\nHostKey /etc/ssh/host\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\n\
             Subsystem sftp internal-sftp\n"
        );
        let (client_key, host_key) = place.visit(|| {
            fs::write("/etc/ssh/sshd_config", config).unwrap();
            (fs::read_to_string("/run/client").unwrap(), fs::read_to_string("/etc/ssh/host.pub").unwrap())
        });
        let known_hosts = format!("[{SERVER_ADDRESS}]:{PORT} {host_key}");
        let process = listen(&place);
        Self { place, client_key, known_hosts, _process: process, _machine: machine }
    }

    /// The private key that root logs in with.
    pub fn client_key(&self) -> &str {
        &self.client_key
    }

    /// The line by which a client knows the server.
    pub fn known_hosts(&self) -> &str {
        &self.known_hosts
    }

    /// Gives root of a room the key, and the server's key as the only one it trusts.
    pub fn install_client(&self, room: &Place) {
        room.visit(|| {
            let directory = Path::new("/root/.ssh");
            fs::create_dir_all(directory).unwrap();
            let write = |name: &str, mode, text: &str| {
                let path = directory.join(name);
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            };
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
            write("id_ed25519", 0o600, &self.client_key);
            write("known_hosts", 0o600, &self.known_hosts);
            write("config", 0o600, "StrictHostKeyChecking yes\nBatchMode yes\nIdentitiesOnly yes\n");
        });
    }
}

/// Starts it in the foreground, and waits for the line that says it listens.
fn listen(place: &Place) -> Process {
    // sshd wants to be called by its whole path.
    let mut command = Room::command("/usr/sbin/sshd");
    command.args(["-D", "-e"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = place.spawn(command);
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("Server listening") {
        assert_ne!(said.read_line(&mut lines).unwrap(), 0, "sshd ended: {lines}");
    }
    // It must not be stopped by a full pipe, nor by a closed one.
    std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
    process
}
