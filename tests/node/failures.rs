//! What goes wrong with a volume, for the commonest helpers: one list, for the test of what is said then and for the page about it.
//!
//! Runs in the tests' process, as root. Helpers and servers are real; the network of the node has addresses at which nothing answers, and
//! to which nothing leads.

mod local;
mod served;

use super::TestNode;
use std::any::Any;

/// The list.
pub fn all() -> impl Iterator<Item = &'static Failing> {
    served::LIST.iter().chain(local::LIST)
}

/// No test volume has it: it must be in no message.
pub const SECRET: &str = "k3y-of-nobody";

/// A helper that cannot mount.
#[derive(Debug)]
pub struct Failing {
    /// Its name, which is the test's.
    pub name: &'static str,
    /// What must be installed, for [`super::missing`].
    pub programs: &'static [&'static str],
    /// The type of its volumes.
    pub fstype: &'static str,
    /// The mounter's configuration for it.
    pub config: &'static str,
    /// Starts its server, and makes its files in the container.
    pub prepare: fn(&TestNode) -> Box<dyn Any>,
    /// What goes wrong.
    pub cells: &'static [Cell],
    /// What else is to be known about its failures.
    pub remark: &'static str,
}

/// Why a volume cannot be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A bucket, volume, directory or image that is not there.
    Name,
    /// A password, key or address that the server does not take, or a server that the client does not know.
    Credentials,
    /// Nothing listens at the server's address.
    Refused,
    /// No route leads to the server.
    Unreachable,
    /// What is sent to the server is dropped.
    Silent,
    /// The server's name is unknown.
    Unresolved,
}

impl Cause {
    /// In the order of the page.
    pub const ALL: [Self; 6] =
        [Self::Name, Self::Credentials, Self::Refused, Self::Unreachable, Self::Silent, Self::Unresolved];

    /// As the page has it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Name => "wrong name",
            Self::Credentials => "wrong credentials",
            Self::Refused => "server down",
            Self::Unreachable => "no route",
            Self::Silent => "no answer",
            Self::Unresolved => "unknown host",
        }
    }
}

/// One way to fail.
#[derive(Debug)]
pub struct Cell {
    /// What is wrong.
    pub cause: Cause,
    /// What comes of it.
    pub outcome: Outcome,
}

/// A volume that is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Wrong {
    /// The source.
    pub source: &'static str,
    /// The options, as for one `-o`.
    pub options: &'static str,
    /// What is said of it.
    pub words: &'static str,
}

/// What comes of a wrong volume.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// It is not mounted: the caller, `hostmount events` and `hostmount logs` have the words.
    Fails(Wrong),
    /// It is mounted all the same; `hostmount logs` has the words once it is used.
    Mounts(Wrong),
    /// This cannot happen, or cannot be tried: why.
    Not(&'static str),
}

/// Makes addresses in the network of the node: what is sent to 10.78.0.1 is dropped, and to 10.79.0.1 there is no route. The container
/// has no name server.
pub fn make_addresses(test: &TestNode) {
    test.node.sh_ok(
        "set -e
        ip address replace 10.77.0.1/32 dev lo
        ip link add out type veth peer name nowhere
        ip address add 10.78.0.2/24 dev out
        ip link set out up
        ip link set nowhere up
        ip neighbour add 10.78.0.1 lladdr 02:00:00:00:00:01 dev out nud permanent
        ip route add unreachable 10.79.0.0/24",
    );
    test.container.sh_ok("echo 'hosts: files' >/tmp/nsswitch.conf; mount --bind /tmp/nsswitch.conf /etc/nsswitch.conf");
}

fn with(server: impl Any) -> Box<dyn Any> {
    Box::new(server)
}

const fn fails(cause: Cause, source: &'static str, options: &'static str, words: &'static str) -> Cell {
    Cell { cause, outcome: Outcome::Fails(Wrong { source, options, words }) }
}

const fn mounts(cause: Cause, source: &'static str, options: &'static str, words: &'static str) -> Cell {
    Cell { cause, outcome: Outcome::Mounts(Wrong { source, options, words }) }
}

const fn not(cause: Cause, why: &'static str) -> Cell {
    Cell { cause, outcome: Outcome::Not(why) }
}
