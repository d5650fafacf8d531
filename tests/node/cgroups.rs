//! The cgroups of a machine, as its node shows them.
//!
//! Runs in the tests' process; a shell on the node does the work.

use super::Place;
use std::sync::LazyLock;
use testbed::machine::{Machine, Network, Recipe};

/// A line of shell that prints where the node's hierarchies are.
pub const HIERARCHIES: &str = "grep -Eo '/sys/fs/cgroup[^ ]* .* - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f1 | sort -u | while read -r h; do [ -e $h/cgroup.procs ] && echo $h; done";

/// All cgroups of the machine, a path a line.
pub fn all(node: &Place) -> String {
    node.sh_ok(&format!("for h in $({HIERARCHIES}); do find $h -mindepth 1 -type d; done | sort"))
}

/// A line of shell that moves a process into the cgroup `name` of every hierarchy, and makes that first.
pub fn enter(name: &str, process: &str) -> String {
    format!(
        "for h in $({HIERARCHIES}); do mkdir -p $h/{name} || exit 1
            d=$h; for part in $(echo {name} | tr / ' '); do
                for f in cpuset.cpus cpuset.mems; do [ ! -w $d/$f ] || cat $d/$f >$d/$part/$f; done; d=$d/$part
            done
            echo {process} >$h/{name}/cgroup.procs || exit 1
        done"
    )
}

/// Why machines here cannot have cgroups of their own.
pub fn obstacle() -> Option<String> {
    static THERE: LazyLock<bool> =
        LazyLock::new(|| Machine::start(&Network::new().unwrap(), Recipe::userland()).unwrap().has_cgroups());
    (!*THERE).then(|| "cgroups cannot be made here".to_owned())
}
