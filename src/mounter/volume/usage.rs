//! What the helpers of all volumes use just now.
//!
//! Runs in the mounter, on the threads of those who ask. All processes are walked through once, whatever the number of volumes; no
//! filesystem is asked.

use super::helper_process::resident;
use super::views::views;
use crate::helper::work::time_of;
use crate::mounter::Mounter;
use api::volume::Usage;
use linux::namespace::NamespaceId;
use linux::processes;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// What the processes of a mount namespace use.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    processes: u64,
    processor: u64,
    memory: u64,
}

/// All volumes, as in a list, with what their helpers use.
pub fn usage(mounter: &Mounter) -> io::Result<Vec<Usage>> {
    let views = views(mounter)?;
    let homes: HashMap<String, NamespaceId> = mounter
        .registry
        .serving()
        .into_iter()
        .map(|(_, volume)| (volume.identity.device.to_string(), volume.processes.namespace()))
        .collect();
    let used = used(homes.values())?;
    let of = |device: &str| homes.get(device).and_then(|home| used.get(home)).copied();
    let usage = views.into_iter().map(|mut view| {
        let used = of(&view.device);
        view.memory = view.memory.or_else(|| used.map(|used| used.memory));
        let Used { processes, processor, .. } = used.unwrap_or_default();
        Usage { view, processes, processor }
    });
    Ok(usage.collect())
}

fn used<'a>(homes: impl Iterator<Item = &'a NamespaceId>) -> io::Result<HashMap<NamespaceId, Used>> {
    let mut used: HashMap<NamespaceId, Used> = homes.map(|home| (*home, Used::default())).collect();
    for process in processes::all(Path::new(processes::OWN))? {
        // One that exits meanwhile is left out.
        let Some(sum) = process.mount_namespace().ok().and_then(|home| used.get_mut(&home)) else { continue };
        let (stat, status) = (process.read("stat"), process.read("status"));
        sum.processes += 1;
        sum.processor += stat.ok().and_then(|stat| time_of(&stat)).unwrap_or_default();
        sum.memory += status.map_or(0, |status| resident(&status));
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_counts_for_its_own_namespace() {
        let home = NamespaceId::of_this_threads_mounts().unwrap();
        let other = NamespaceId { device: home.device, inode: 1 };
        let used = used([home, other].iter()).unwrap();
        assert!(used[&home].processes >= 1 && used[&home].memory > 10_000, "{used:?}");
        assert_eq!((used[&other].processes, used[&other].memory), (0, 0));
    }
}
