//! The names of what is logged, in the field `event` of a log line: they stay when the words change.
//!
//! Scripts and tests may rely on them; docs/log-events.md lists them for administrators.

/// The mounter takes requests.
pub const READY: &str = "mounter.ready";
/// The mounter was asked to stop; requests under way give up.
pub const STOPPING: &str = "mounter.stopping";
/// The mounter has stopped; volumes go on.
pub const STOPPED: &str = "mounter.stopped";
/// A program was put onto the node.
pub const INSTALLED: &str = "node.installed";
/// An engine was chosen.
pub const ENGINE: &str = "engine.chosen";
/// A call was refused before anything was done.
pub const REFUSED: &str = "caller.refused";

/// A volume is on the node.
pub const MOUNTED: &str = "volume.mounted";
/// A volume could not be mounted, and nothing of it is left.
pub const NOT_MOUNTED: &str = "volume.not-mounted";
/// A volume is gone from everywhere, and its helper with it.
pub const UNMOUNTED: &str = "volume.unmounted";
/// A volume of a filesystem of the kernel's own: the mounter has nothing more to do with it.
pub const SERVED_BY_KERNEL: &str = "volume.served-by-kernel";
/// An earlier mounter's volume was found, and its helper lives.
pub const ADOPTED: &str = "volume.adopted";
/// A volume's helper has ended while the volume is mounted.
pub const DEAD: &str = "volume.dead";
/// A dead volume waits until it is tried again.
pub const HEAL_LATER: &str = "volume.heal-later";
/// A dead volume is left as it is.
pub const NOT_HEALED: &str = "volume.not-healed";
/// A dead volume could not be healed at this try.
pub const HEAL_FAILED: &str = "volume.heal-failed";
/// A dead volume has a fresh helper, in all its places.
pub const HEALED: &str = "volume.healed";
/// A fresh helper serves a volume: after a heal or a swap.
pub const REPLACED: &str = "volume.replaced";
/// A place of a volume still shows the old filesystem after a heal or a swap.
pub const PLACE_LEFT: &str = "volume.place-left";
/// What was mounted inside a volume is lost after a heal or a swap.
pub const INNER_MOUNT_LOST: &str = "volume.inner-mount-lost";
/// The helper that was replaced has ended: nothing of it was open any more.
pub const DRAINED: &str = "volume.drained";
/// A volume does not answer.
pub const HUNG: &str = "volume.hung";
/// A volume that hung answers again.
pub const ANSWERS: &str = "volume.answers";
/// Not all is known of an earlier mounter's volume.
pub const FORGOTTEN: &str = "volume.not-known";

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
/// Requests wait for file locks, which other processes hold.
pub const LOCKED: &str = "volume.locked";
/// A helper that hangs is not killed, as its volume would not be healed.
pub const HUNG_LEFT: &str = "volume.hung-left";
/// Processes of a helper are still there after SIGKILL.
pub const HELPER_STAYS: &str = "helper.stays";
/// The node keeps the version of the programs that it has.
pub const NOT_INSTALLED: &str = "node.not-installed";
/// Helpers end with the container, or a limit is not in force.
pub const ENDS_WITH_CONTAINER: &str = "node.ends-with-container";
