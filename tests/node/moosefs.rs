//! A real MooseFS: a master and one chunk server, on a machine of their own in the network of the node.
//!
//! Runs in the tests' process, as root.

use super::{Place, SERVER_ADDRESS};
use std::fs;
use std::path::Path;
use testbed::machine::{Machine, Network, Recipe};

/// The programs it needs, for [`super::missing`].
pub const PROGRAMS: &[&str] = &["mfsmaster", "mfschunkserver", "mount.moosefs", "ip"];

/// Both servers; all of it is gone with this value.
#[derive(Debug)]
pub struct MooseFs {
    _machine: Machine,
}

impl MooseFs {
    /// Starts them at [`SERVER_ADDRESS`] in `network`, for every client.
    pub fn start(network: &Network) -> Self {
        Self::with_password(network, None)
    }

    /// The same for clients with this password, if there is one.
    pub fn with_password(network: &Network, password: Option<&str>) -> Self {
        let machine = Machine::start(network, Recipe::userland().writable(["/run", "/tmp", "/srv"])).unwrap();
        let place = Place(machine.node().clone());
        let password = password.map(|word| format!(",password={word}"));
        let own = "WORKING_USER = root\nWORKING_GROUP = root\n";
        let listen: String =
            ["MATOML", "MATOCS", "MATOCL"].map(|role| format!("{role}_LISTEN_HOST = {SERVER_ADDRESS}\n")).concat();
        let files = [
            ("master", format!("{own}DATA_PATH = /srv/m\nEXPORTS_FILENAME = /srv/exports\n{listen}")),
            ("exports", format!("* / rw,alldirs,maproot=0:0{}\n", password.as_deref().unwrap_or_default())),
            (
                "chunk",
                format!(
                    "{own}DATA_PATH = /srv/c\nHDD_CONF_FILENAME = /srv/disks\nHDD_LEAVE_SPACE_DEFAULT = 1MiB\n\
                     MASTER_HOST = {SERVER_ADDRESS}\nBIND_HOST = {SERVER_ADDRESS}\n\
                     CSSERV_LISTEN_HOST = {SERVER_ADDRESS}\n"
                ),
            ),
            ("disks", "/srv/disk 200MiB\n".to_owned()),
        ];
        place.visit(|| files.iter().for_each(|(name, text)| fs::write(Path::new("/srv").join(name), text).unwrap()));
        // Each start returns when the server listens. A client waits for the chunk server to be known to the master.
        place.sh_ok(&format!(
            "set -e
            ip address replace {SERVER_ADDRESS}/32 dev lo
            mkdir /srv/m /srv/c /srv/disk
            cp /var/lib/mfs/metadata.mfs.empty /srv/m/metadata.mfs
            mfsmaster -c /srv/master start >/srv/out 2>&1
            mfschunkserver -c /srv/chunk start >/srv/out 2>&1"
        ));
        Self { _machine: machine }
    }
}
