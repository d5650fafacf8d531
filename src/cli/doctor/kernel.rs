//! What the node's kernel has of what hostmount uses, and SELinux.
//!
//! Runs in the container; it reads files.

use super::finding::Found;
use crate::node::kernel::has_move_mount_beneath;
use linux::mount_namespace::MountNamespace;
use std::fs;

/// A version, and what is missing in earlier ones (docs/kernel-features.md).
type Feature = ((u32, u32), &'static str);

const FEATURES: [Feature; 7] = [
    ((5, 9), "seccomp listeners that hang up: a helper's end is not noticed (use --engine preload)"),
    ((5, 12), "mount_setattr(2): fresh service-account tokens reach no running helper"),
    ((5, 14), "cgroup.kill: a helper's processes are killed one after the other"),
    ((6, 5), "SO_PEERPIDFD: callers are found by the id that they connected with"),
    ((6, 5), BENEATH),
    ((6, 9), "FUSE_NOTIFY_RESEND: calls fail until a dead volume is healed, and do not wait"),
    ((6, 12), "FUSE mounts with mapped ids: pods with hostUsers: false cannot have volumes"),
];
const BENEATH: &str = "MOVE_MOUNT_BENEATH: a heal or a swap has a moment in which nothing is mounted";

/// The kernel's features.
pub(super) fn features() -> Found {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    judge(&release, has_move_mount_beneath())
}

fn judge(release: &str, beneath: bool) -> Found {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let Some(version) = numbers.next().zip(numbers.next()) else {
        return Found::warning(
            "kernel",
            format!("its version is not understood: {release}"),
            "see docs/kernel-features.md",
        );
    };
    // What can be tried counts, and not the version.
    let is_missing = |(since, what): &&Feature| if *what == BENEATH { !beneath } else { version < *since };
    let missing: Vec<_> = FEATURES.iter().filter(is_missing).collect();
    if missing.is_empty() {
        let users = "pods with hostUsers: false can have volumes with the option x-hostmount.host-users=false (CSI: hostUsers); without \
                     it the runtime says \"failed to set MOUNT_ATTR_IDMAP\" of most (docs/user-namespaces.md)";
        return Found::ok("kernel", format!("Linux {release} has all that is used\n{users}"));
    }
    let lines = missing.iter().map(|((major, minor), what)| format!("\nno {what}; since Linux {major}.{minor}"));
    let advice = "hostmount works, with these consequences; a newer kernel has none of them (docs/kernel-features.md)";
    Found::warning("kernel", format!("Linux {release}, by its version:{}", lines.collect::<String>()), advice)
}

/// SELinux: whether it would hinder the mounter.
pub(super) fn selinux(node: Option<&MountNamespace>) -> Found {
    let enforces = || fs::read_to_string("/sys/fs/selinux/enforce").ok().map(|text| text.trim() == "1");
    let enforces = node.and_then(|node| node.visit(enforces).ok()).unwrap_or_else(enforces);
    let context = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    judge_selinux(enforces, context.trim_end_matches(['\0', '\n']))
}

fn judge_selinux(enforces: Option<bool>, context: &str) -> Found {
    const MAY: [&str; 4] = ["spc_t", "unconfined_t", "unconfined_service_t", "super_t"];
    let kind = context.split(':').nth(2).unwrap_or_default();
    match enforces {
        None => Found::ok("selinux", "this node has none"),
        Some(false) => Found::ok("selinux", "it is permissive"),
        Some(true) if MAY.contains(&kind) => {
            Found::ok("selinux", format!("it is enforcing, and this container is {kind}"))
        }
        Some(true) => Found::warning(
            "selinux",
            format!("it is enforcing, and this container is {context}, which may not be allowed to mount"),
            "run it privileged: a policy with spc_t gives it that type then; or name one that may, in its seLinuxOptions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn an_older_kernel_is_told_by_its_consequences() {
        let found = judge("5.10.0-32-amd64", false);
        assert_eq!(found.level, Level::Warning);
        assert!(found.message.contains("no mount_setattr(2)") && !found.message.contains("5.9\n"), "{}", found.message);
        let new = judge("6.18.5", true);
        assert_eq!(new.level, Level::Ok);
        for words in ["MOUNT_ATTR_IDMAP", "x-hostmount.host-users=false", "docs/user-namespaces.md"] {
            assert!(new.message.contains(words), "{}", new.message);
        }
        let older = "pods with hostUsers: false cannot have volumes; since Linux 6.12";
        assert!(judge("6.9.1", true).message.contains(older));
        assert!(judge("6.18.5", false).message.contains("MOVE_MOUNT_BENEATH"));
        assert!(!judge("6.1.0", true).message.contains("MOVE_MOUNT_BENEATH"), "it was put into an older kernel");
        assert_eq!(judge("?", true).level, Level::Warning);
    }

    #[test]
    fn selinux_hinders_what_it_does_not_know() {
        let level = |enforces, context| judge_selinux(enforces, context).level;
        assert_eq!(level(None, ""), Level::Ok);
        assert_eq!(level(Some(false), "system_u:system_r:container_t:s0:c1,c2"), Level::Ok);
        assert_eq!(level(Some(true), "system_u:system_r:spc_t:s0"), Level::Ok);
        assert_eq!(level(Some(true), "system_u:system_r:container_t:s0:c1,c2"), Level::Warning);
    }
}
