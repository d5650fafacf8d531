//! Records of volumes: the next mounter, of this version or a later one, reads what this one has written, whole or not.

use hostmount::config::Config;
use hostmount::mounter::volume::Known;
use hostmount::mounter::volume::record::{Unreadable, describe, understand};
use rustix::mount::MountFlags;

/// One file.
pub fn check(bytes: &[u8]) {
    let config = Config::default();
    match understand(bytes, &config) {
        Err(Unreadable::Never(problem) | Unreadable::ByThisVersion(problem)) => assert!(!problem.is_empty()),
        Ok(volume) => {
            assert!(volume.plan.grant.flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
            super::options::comes_back(&volume.plan.request.options);
            // Of the others it is known that they do not say all, and no record is written.
            if volume.known != Known::All {
                return;
            }
            let written = describe(&volume).expect("a volume that was read can be written");
            let again = understand(&written, &config).expect("what was written is read");
            assert_eq!(format!("{again:?}"), format!("{volume:?}"), "it is what it was");
            assert_eq!(describe(&again).expect("again"), written);
        }
    }
}
