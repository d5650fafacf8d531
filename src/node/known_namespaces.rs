//! Which filesystems each mount namespace shows, remembered from one search to the next: a table is read only where one that is wanted is
//! mounted.
//!
//! Runs in the mounter, on the thread that searches. The kernel lists a namespace's mounts by numbers that it gives to no other mount,
//! and whose filesystem never changes: only new ones are asked about. So what is remembered is true whatever happened meanwhile.

use linux::mount_table::Device;
use linux::processes::PopulatedNamespace;
use linux::sys::mount_ids::{MountIds, device_of, mounts_of};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

/// How many mounts of a namespace are remembered, and of all of them: a pod may make as many as the kernel lets it. What has more is
/// not remembered, and its table is read.
const OF_ONE: usize = 4096;
const OF_ALL: usize = 1 << 18;

/// The mounts of each namespace.
#[derive(Debug, Default)]
pub(super) struct KnownNamespaces {
    mounts: HashMap<u64, Vec<(u64, Device)>>,
    looked_at: HashSet<u64>,
}

impl KnownNamespaces {
    /// A search begins.
    pub(super) fn begin(&mut self) {
        self.looked_at.clear();
    }

    /// It is over: what it has not come across is no more.
    pub(super) fn end(&mut self) {
        let Self { mounts, looked_at } = self;
        mounts.retain(|namespace, _| looked_at.contains(namespace));
    }

    /// Whether a namespace may show one of these filesystems. Where the kernel does not say (before 6.12), it may.
    pub(super) fn may_show(&mut self, namespace: &PopulatedNamespace, wanted: &HashSet<Device>) -> bool {
        let Some(opened) = namespace.open_file() else { return true };
        let Ok(Some(MountIds { namespace, mounts })) = mounts_of(opened.as_fd(), OF_ONE) else { return true };
        let more = mounts.len().saturating_sub(self.mounts.get(&namespace).map_or(0, Vec::len));
        if more > 0 && self.mounts.values().map(Vec::len).sum::<usize>() + more > OF_ALL {
            self.mounts.remove(&namespace);
            return true;
        }
        self.looked_at.insert(namespace);
        let known = self.mounts.entry(namespace).or_default();
        let mut before = std::mem::take(known).into_iter().peekable();
        // Both are in the order of their numbers.
        for mount in mounts {
            while before.next_if(|(number, _)| *number < mount).is_some() {}
            match before.next_if(|(number, _)| *number == mount) {
                Some(same) => known.push(same),
                None => match device_of(mount, namespace) {
                    Ok(device) => known.push((mount, device)),
                    // It has gone since.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(_) => {
                        self.mounts.remove(&namespace);
                        return true;
                    }
                },
            }
        }
        known.iter().any(|(_, device)| wanted.contains(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::own_mounts::{in_own_mounts, mounted_at, new_tmpfs};
    use linux::namespace::NamespaceId;
    use linux::processes::{OWN, Process};
    use rustix::mount::{UnmountFlags, unmount};
    use std::path::Path;

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn what_comes_and_goes_is_seen() {
        in_own_mounts(|| {
            let id = NamespaceId::of_this_threads_mounts().unwrap();
            let processes = vec![Process::at(Path::new(OWN), rustix::thread::gettid())];
            let (own, mut known) = (PopulatedNamespace { id, processes }, KnownNamespaces::default());
            let mut shows = |device| {
                known.begin();
                let shows = known.may_show(&own, &HashSet::from([device]));
                known.end();
                shows
            };
            let before = mounted_at("/mnt").device;
            assert!(shows(before));
            new_tmpfs("/mnt/new");
            let device = mounted_at("/mnt/new").device;
            assert!(shows(device) && shows(before));
            unmount("/mnt/new", UnmountFlags::DETACH).unwrap();
            let known_to_the_kernel =
                mounts_of(own.open_file().unwrap().as_fd(), OF_ONE).is_ok_and(|all| all.is_some());
            assert!(shows(before) && shows(device) != known_to_the_kernel);
        });
    }
}
