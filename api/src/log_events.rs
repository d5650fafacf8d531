//! Names of log events, in the field `event` of a log line: they stay the same when the message changes.
//!
//! Scripts and tests may rely on them; docs/log-events.md lists them for administrators.

/// The mounter accepts requests.
pub const READY: &str = "mounter.ready";
/// The mounter was asked to stop; requests under way are given up.
pub const STOPPING: &str = "mounter.stopping";
/// The mounter has stopped; volumes are still served.
pub const STOPPED: &str = "mounter.stopped";
/// A changed configuration is in force.
pub const CONFIGURATION_TAKEN: &str = "configuration.taken-over";
/// What is in the configuration's file is not in force, or not all of it.
pub const CONFIGURATION_REFUSED: &str = "configuration.not-taken-over";
/// A program was installed on the node.
pub const INSTALLED: &str = "node.installed";
/// An engine was chosen.
pub const ENGINE: &str = "engine.chosen";
/// A call was refused before anything was done.
pub const REFUSED: &str = "caller.refused";

/// A volume is mounted on the node.
pub const MOUNTED: &str = "volume.mounted";
/// A volume shows at one more place.
pub const SHOWN: &str = "volume.shown";
/// A volume shows by a placeholder, which gives way in each pod with a user namespace.
pub const PLACEHOLDER: &str = "volume.placeholder";
/// The process of a volume's placeholder has ended.
pub const PLACEHOLDER_ENDED: &str = "volume.placeholder-ended";
/// Another process serves the placeholder's places.
pub const PLACEHOLDER_RENEWED: &str = "volume.placeholder-renewed";
/// A placeholder stays without a process, for now or for good.
pub const PLACEHOLDER_LEFT: &str = "volume.placeholder-left";
/// A volume was taken away from a place, by request.
pub const TAKEN_AWAY: &str = "volume.taken-away";
/// A mounted volume's helper has fresh service-account tokens.
pub const TOKENS_RENEWED: &str = "volume.tokens-renewed";
/// A mounted volume's helper keeps its service-account tokens, although there are fresh ones.
pub const TOKENS_NOT_RENEWED: &str = "volume.tokens-not-renewed";
/// A volume was asked for that the rules refuse.
pub const VOLUME_REFUSED: &str = "volume.refused";
/// A volume could not be mounted, and nothing of it is left.
pub const NOT_MOUNTED: &str = "volume.not-mounted";
/// A volume is mounted nowhere any more, and its helper has exited.
pub const UNMOUNTED: &str = "volume.unmounted";
/// A filesystem of the kernel's own is mounted: the mounter does not manage it.
pub const SERVED_BY_KERNEL: &str = "volume.served-by-kernel";
/// An earlier mounter's volume was found, and its helper lives.
pub const ADOPTED: &str = "volume.adopted";
/// A volume's helper has exited or was killed while the volume is mounted.
pub const DEAD: &str = "volume.dead";
/// A volume's helper has ended, and requests wait for a fresh one.
pub const HELD: &str = "volume.held";
/// Files are open in the filesystem of a helper that is gone: they are served from the fresh one.
pub const HEIR: &str = "volume.open-files";
/// They cannot be.
pub const NO_HEIR: &str = "volume.open-files-lost";
/// No fresh helper came in time: requests wait no longer.
pub const HOLD_OVER: &str = "volume.hold-over";
/// A dead volume waits for the next try to heal it.
pub const HEAL_LATER: &str = "volume.heal-later";
/// A dead volume is not to be healed, or cannot be.
pub const NOT_HEALED: &str = "volume.not-healed";
/// A try to heal a volume failed.
pub const HEAL_FAILED: &str = "volume.heal-failed";
/// A dead volume has a fresh helper, at all its places.
pub const HEALED: &str = "volume.healed";
/// A fresh helper serves a volume: after a heal or a swap.
pub const REPLACED: &str = "volume.replaced";
/// A volume has a fresh helper in the place of one that served, as a caller wanted.
pub const SWAPPED: &str = "volume.swapped";
/// A caller wanted that, and the volume keeps its helper.
pub const NOT_SWAPPED: &str = "volume.not-swapped";
/// A volume has a helper of this container's image, in the place of one of an earlier container's.
pub const UPGRADED: &str = "volume.upgraded";
/// A volume keeps its helper of an earlier container's image, for now or for good.
pub const NOT_UPGRADED: &str = "volume.not-upgraded";
/// A place of a volume still shows the old filesystem after a heal or a swap.
pub const PLACE_LEFT: &str = "volume.place-left";
/// A mount inside a volume was lost in a heal or a swap.
pub const INNER_MOUNT_LOST: &str = "volume.inner-mount-lost";
/// A helper that was replaced has exited: the last file that it served was closed.
pub const DRAINED: &str = "volume.drained";
/// A volume does not answer.
pub const HUNG: &str = "volume.hung";
/// A volume that nobody has any more does not answer: it is ended.
pub const ABANDONED: &str = "volume.abandoned";
/// A volume does not answer, and living processes have it: killed ones wait for it no longer.
pub const INTERRUPTED: &str = "volume.interrupted";
/// A volume does not answer, and processes have it that live.
pub const IN_USE: &str = "volume.in-use";
/// A volume that hung answers again.
pub const ANSWERS: &str = "volume.answers";
/// The options or secrets of an earlier mounter's volume are not known.
pub const FORGOTTEN: &str = "volume.not-known";

/// A volume waits for the program of its pod that serves it.
pub const PROGRAM_AWAITED: &str = "program.awaited";
/// A program of a pod serves a volume, at all its places.
pub const PROGRAM_SERVES: &str = "program.serves";
/// The program of a pod that served a volume has ended.
pub const PROGRAM_ENDED: &str = "program.ended";
/// A program of a pod asked for a volume's filesystem, and does not serve it.
pub const PROGRAM_NOT_READY: &str = "program.not-ready";
/// No program has come in time: calls of the volume fail.
pub const PROGRAM_LATE: &str = "program.late";

/// A line that a helper wrote.
pub const HELPER_LINE: &str = "helper.line";
/// Lines of a helper are not logged for a while.
pub const HELPER_QUIETED: &str = "helper.quieted";
/// A call of a helper was refused.
pub const HELPER_REFUSED: &str = "helper.refused";
/// The kernel killed a helper because memory ran out.
pub const HELPER_OUT_OF_MEMORY: &str = "helper.out-of-memory";
/// Requests wait for a helper that works.
pub const BUSY: &str = "volume.busy";
/// Requests wait for file locks that other processes hold.
pub const LOCKED: &str = "volume.locked";
/// A helper that hangs is not killed, as its volume would not be healed.
pub const HUNG_LEFT: &str = "volume.hung-left";
/// Processes of a helper are still there after SIGKILL.
pub const HELPER_STAYS: &str = "helper.stays";
/// The node keeps the version of the programs that it has.
pub const NOT_INSTALLED: &str = "node.not-installed";
/// Helpers are killed with the container, or a memory limit is not enforced.
pub const ENDS_WITH_CONTAINER: &str = "node.ends-with-container";

/// Those that `hostmount events` shows: what has become of a volume, and no steps on the way.
pub const KEPT: [&str; 27] = [
    MOUNTED,
    SHOWN,
    TAKEN_AWAY,
    VOLUME_REFUSED,
    NOT_MOUNTED,
    UNMOUNTED,
    ADOPTED,
    DEAD,
    HOLD_OVER,
    NOT_HEALED,
    HEAL_FAILED,
    HEALED,
    SWAPPED,
    NOT_SWAPPED,
    UPGRADED,
    NOT_UPGRADED,
    PLACE_LEFT,
    INNER_MOUNT_LOST,
    HUNG,
    ABANDONED,
    ANSWERS,
    FORGOTTEN,
    PROGRAM_AWAITED,
    PROGRAM_SERVES,
    PROGRAM_ENDED,
    PROGRAM_LATE,
    HELPER_OUT_OF_MEMORY,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The table rows of the page begin with the name of an event: `| `NAME` | …`.
    #[test]
    fn the_page_names_every_event_and_no_other() {
        let names = |line: &&str| line.starts_with("pub const ") && line.contains(": &str");
        let constants = include_str!("log_events.rs").lines().filter(names);
        let constants: BTreeSet<_> = constants.map(|line| line.split('"').nth(1).expect(line)).collect();
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/log-events.md"));
        let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(rows.iter().copied().collect::<BTreeSet<_>>(), constants);
        assert_eq!(rows.len(), constants.len(), "an event has two rows");
    }

    #[test]
    fn the_page_names_what_is_kept() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/log-events.md"));
        let (_, section) = page.split_once("## What `hostmount events` shows").unwrap();
        let (list, _) = section.split_once("They are kept").unwrap();
        assert_eq!(list.split('`').skip(1).step_by(2).collect::<Vec<_>>(), super::KEPT);
    }
}
