//! Finding the placeholders of an earlier mounter again: their processes, and those that have none any more.
//!
//! Runs in the mounter, on the main thread, before it takes requests.

use super::{Placeholder, Served};
use crate::helper::output::HelperOutput;
use crate::mounter::Mounter;
use crate::node::fuse_device::FuseDevice;
use crate::node::placeholder;
use crate::placeholder::told::Told;
use linux::mount_table::{Device, Mount};
use linux::processes::{self, Process};
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::warn;

/// Takes in all that there are.
pub fn recover(mounter: &Mounter) {
    let table = Process::first(&mounter.host_proc).mounts().unwrap_or_default();
    let processes = processes::all(Path::new(processes::OWN)).unwrap_or_else(|error| {
        warn!("cannot look for the processes of placeholders: {error}");
        Vec::new()
    });
    let mut served: HashSet<Device> = HashSet::new();
    for process in processes.iter().filter(|process| mounter.cgroups.is_placeholder(process.pid())) {
        if let Some(found) = served_by(mounter, process, &table) {
            served.insert(found.placeholder.filesystem.device);
            mounter.placeholders.add(found);
        }
    }
    // Where kubelet shows a directory of one (`subPath`) its filesystem is the same.
    for mount in table.iter().filter(|mount| mount.root == Path::new("/")) {
        if let Some(volume) = placeholder::volume_of(mount)
            && served.insert(mount.device)
        {
            let filesystem = mounter.connections.identify(mount.device);
            let (volume, target) = (volume.to_owned(), mount.target.clone());
            mounter.placeholders.add_dead(Placeholder { filesystem, volume, target });
        }
    }
}

/// What a process serves, as its command line says.
fn served_by(mounter: &Mounter, process: &Process, table: &[Mount]) -> Option<Served> {
    let held = process.pidfd().ok()?;
    let arguments: Vec<OsString> = {
        let line = std::fs::read(process.file("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).skip(2).map(|word| OsString::from_vec(word.to_vec()));
        words.collect()
    };
    // The last one ends with a zero, too.
    let Told { device, target, .. } = Told::parse(arguments.split_last()?.1)?;
    let filesystem = mounter.connections.identify(device);
    let connection = FuseDevice::of_pods(process, filesystem, true, &mounter.connections);
    let words = HelperOutput::of_own_process(process);
    let volume = volume_shown(mounter, device, table)?;
    let placeholder = Placeholder { filesystem, volume, target };
    Some(Served { placeholder, process: held, connection, words, since: Instant::now(), failures: 0 })
}

/// Which volume's it is: its mounts say so, on the node, or in containers alone.
fn volume_shown(mounter: &Mounter, device: Device, table: &[Mount]) -> Option<PathBuf> {
    let on_node = table.iter().find(|mount| mount.device == device).cloned();
    let mount = on_node.or_else(|| {
        let visible = mounter.search.find(mounter.connections.identify(device), &mounter.connections).ok()??;
        visible.mounts.into_iter().next().map(|visible| visible.mount)
    })?;
    placeholder::volume_of(&mount).map(Path::to_owned)
}
