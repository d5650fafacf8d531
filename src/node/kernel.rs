//! Whether the kernel has what no volume can do without, and one thing more. Asked once, when the mounter starts.
//!
//! Runs in the mounter, main thread; changes nothing.

use super::tree::BENEATH;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::fs;

/// The kernel lacks something that nothing stands in for.
#[derive(Debug, thiserror::Error)]
#[error("hostmount needs Linux 5.8 or later: this node's kernel, {running}, has no {feature}")]
pub struct TooOld {
    running: String,
    feature: &'static str,
}

/// Tries the calls by which a filesystem gets onto the node. If they exist and are refused, the first mount fails with an error that says so.
pub fn check() -> Result<(), TooOld> {
    let absent = |errno: Option<Errno>| errno == Some(Errno::NOSYS);
    let feature = if absent(open_tree(CWD, c"/", OpenTreeFlags::OPEN_TREE_CLOEXEC).err()) {
        "open_tree(2)"
    } else if absent(move_mount(CWD, c"", CWD, c"", NO_SUCH_FLAG).err()) {
        "move_mount(2)"
    } else if !knows_mount_roots() {
        "statx(2) that recognizes mount points"
    } else {
        return Ok(());
    };
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    Err(TooOld { running, feature })
}

/// Whether a mount can be put beneath another one: 6.5 and later.
pub fn has_move_mount_beneath() -> bool {
    // There is no mount to move: a kernel that does not know the flag says EINVAL before it sees that.
    move_mount(CWD, c"", CWD, c"", BENEATH).err() == Some(Errno::NOENT)
}

/// Whether a FUSE connection hands out once more what was read: 6.9 and later. Nothing but the version tells before it is needed.
pub fn has_resend() -> bool {
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = running.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}

/// With it every kernel that has move_mount(2) refuses.
const NO_SUCH_FLAG: MoveMountFlags = MoveMountFlags::from_bits_retain(1 << 31);

fn knows_mount_roots() -> bool {
    let root = statx(CWD, c"/", AtFlags::empty(), StatxFlags::TYPE);
    root.is_ok_and(|root| root.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT))
}
