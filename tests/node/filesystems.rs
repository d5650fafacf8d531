//! Every filesystem that is tested with its real program and its real server: one list, for tests and benches.
//!
//! Runs in the tests' process, as root. Sources are made in the container; servers run in rooms of their own.

mod local;
mod served;

use super::TestNode;
use std::any::Any;

/// The list.
pub fn all() -> impl Iterator<Item = &'static Filesystem> {
    served::LIST.iter().chain(local::LIST)
}

/// A filesystem to try.
#[derive(Debug)]
pub struct Filesystem {
    /// Its name, which is the test's.
    pub name: &'static str,
    /// What must be installed, for [`super::missing`]; a name with a slash is fetched (see [`super::fetched`]).
    pub programs: &'static [&'static str],
    /// Prints its version, in the container.
    pub version: &'static str,
    /// The mounter's configuration for it.
    pub config: &'static str,
    /// What its helper runs as.
    pub user: User,
    /// What the command line of each of its processes contains.
    pub helper: &'static str,
    /// What can be done with it.
    pub access: Access,
    /// Makes a source, in the container or on a server.
    pub prepare: fn(&TestNode) -> Volume,
}

/// What a helper runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A uid of its own.
    Own,
    /// uid 0, for this reason.
    Root(&'static str),
}

/// Why most of those are root that have no server.
const CONTAINERS_FILES: User =
    User::Root("it writes to the container's files, and reads again what an earlier helper wrote");

/// What a filesystem is able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All of it.
    Full,
    /// It shows a file `f` with the line `packed`.
    ReadOnly,
}

/// Something to mount. Its servers end with it.
#[derive(Debug)]
pub struct Volume {
    /// The type.
    pub fstype: &'static str,
    /// The source.
    pub source: String,
    /// The options, as for one `-o`.
    pub options: String,
    /// What must live as long.
    pub servers: Vec<Box<dyn Any>>,
}

fn volume(fstype: &'static str, source: impl Into<String>, options: impl Into<String>) -> Volume {
    Volume { fstype, source: source.into(), options: options.into(), servers: Vec::new() }
}

impl Volume {
    fn with(mut self, server: impl Any) -> Self {
        self.servers.push(Box::new(server));
        self
    }
}
