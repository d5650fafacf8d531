//! What callers are shown of volumes: those that are there, and the last ones that were.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::registry::Entry;
use super::{Known, Volume, VolumeId, helper_process, pods, seconds};
use crate::helper::arguments::with_words;
use crate::helper::namespace::in_words_of_the_node;
use crate::helper::output::{aside, texts};
use crate::helper::packages::versions;
use crate::mounter::Mounter;
use crate::node::connections::Identity;
use crate::node::placeholder;
use crate::policy::without_secrets;
use api::pod::Pod;
use api::volume::{HelperProcess, Line, Lines, Options, Stats, VolumeDetail, VolumeState, VolumeView};
use linux::mount_table::{self, Device, Mount};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// How many of the places where a volume shows are named.
const PLACES: usize = 100;

/// All volumes, as the node's mount table shows them just now (read once).
pub fn views(mounter: &Mounter) -> io::Result<Vec<VolumeView>> {
    let on_node = OnNode::read(mounter)?;
    let mut views: Vec<VolumeView> = {
        let volumes = mounter.registry.locked();
        let current = volumes.by_id.iter().filter(|(_, entry)| entry.state.is_current());
        current.map(|(id, entry)| view_now(mounter, *id, entry, &on_node)).collect()
    };
    views.extend(mounter.pods.views(mounter));
    pods::name(mounter, views.iter_mut().flat_map(|view| &mut view.pods));
    Ok(views)
}

/// The volume at `target`: the topmost that is there, or else the last one that was or should have been.
pub fn detail(mounter: &Mounter, target: &Path) -> io::Result<Option<VolumeDetail>> {
    if let Some(mut detail) = mounter.pods.detail(mounter, target) {
        pods::name(mounter, detail.view.pods.iter_mut());
        return Ok(Some(detail));
    }
    let on_node = OnNode::read(mounter)?;
    let (found, processes) = {
        let volumes = mounter.registry.locked();
        let here = |entry: &Entry| entry.state.is_current() && entry.volume.plan.target == target;
        let there = volumes.by_id.iter().rfind(|(_, entry)| here(entry)).map(|(id, entry)| {
            let detail = VolumeDetail {
                places: on_node.places(entry),
                process: Some(of_cgroup(entry)),
                options: options(&entry.volume),
                ..VolumeDetail::of(view_now(mounter, *id, entry, &on_node), None, texts(entry.lines()))
            };
            let helper = (entry.volume.processes.clone(), entry.volume.earlier_image);
            (detail, Some(helper).filter(|_| entry.state.has_helper()))
        });
        match there.or_else(|| Some((volumes.past.at(target)?.detail(), None))) {
            Some(found) => found,
            None => return Ok(None),
        }
    };
    // It walks through /proc: nobody waits for it.
    let process = processes.and_then(|(processes, earlier_image)| {
        let seen = helper_process::look(&processes)?;
        // Of an earlier image the packages are not here.
        let program = seen.program.as_deref().map(Path::new).filter(|_| !earlier_image);
        let package = program.and_then(|program| versions(&[program]).remove(program));
        Some(HelperProcess { package, ..seen })
    });
    let process = process.map(|seen| match &found.process {
        Some(HelperProcess { cgroup: Some(cgroup), memory, memory_limit, .. }) => {
            HelperProcess { cgroup: Some(cgroup.clone()), memory: *memory, memory_limit: *memory_limit, ..seen }
        }
        _ => seen,
    });
    let mut view = found.view;
    if view.pods.is_empty() {
        view.pods = own_pod(mounter, target, None).into_iter().collect();
    }
    pods::name(mounter, view.pods.iter_mut());
    let lines = in_words_of_the_node(&mounter.state, &found.lines);
    Ok(Some(VolumeDetail { view, lines, process, ..found }))
}

/// The last lines of the helpers of the volume at `target`, as in [`detail`]: those after the line of that number.
pub fn lines(mounter: &Mounter, target: &Path, after: u64) -> Option<Lines> {
    let found = match mounter.pods.detail(mounter, target) {
        // Of a pod's program there are its last words, and its container has all others.
        Some(detail) => Lines { lines: detail.lines.into_iter().map(aside).collect(), over: true },
        None => {
            let volumes = mounter.registry.locked();
            let here = |entry: &&Entry| entry.state.is_current() && entry.volume.plan.target == target;
            match volumes.by_id.values().rfind(here) {
                Some(entry) => Lines { lines: entry.lines(), over: false },
                None => Lines { lines: volumes.past.at(target)?.lines.clone(), over: true },
            }
        }
    };
    let wanted = |line: &Line| after == 0 || line.number > after;
    let mut lines: Vec<Line> = found.lines.into_iter().filter(wanted).collect();
    let texts = in_words_of_the_node(&mounter.state, &texts(lines.clone()));
    lines.iter_mut().zip(texts).for_each(|(line, text)| line.text = text);
    Some(Lines { lines, ..found })
}

/// How the volume is that is this filesystem. Of one that the kernel serves, or that is not known, nothing but that it is there.
pub fn condition(mounter: &Mounter, filesystem: Identity) -> Stats {
    if let Some(stats) = mounter.pods.condition(mounter, filesystem) {
        return stats;
    }
    let volumes = mounter.registry.locked();
    let volume = volumes.by_id.iter().find(|(_, entry)| entry.is(filesystem));
    let view = volume.map(|(id, entry)| {
        // It has been seen where it was asked for.
        let here = HashSet::from([(entry.volume.plan.target.clone(), entry.volume.identity.device)]);
        view_now(mounter, *id, entry, &OnNode { at: here, ..OnNode::default() })
    });
    let Some(view) = view else {
        let waiting = mounter.connections.waiting(filesystem).ok();
        return Stats { state: VolumeState::Mounted, waiting, hung_since: None, note: None, space: None, heals: 0 };
    };
    let VolumeView { state, waiting, hung_since, note, heals, .. } = view;
    Stats { state, waiting, hung_since, note, space: None, heals }
}

/// What is mounted where on the node.
#[derive(Debug, Default)]
struct OnNode {
    at: HashSet<(PathBuf, Device)>,
    /// Where placeholders are, each with the target of its volume.
    placeholders: BTreeSet<(PathBuf, PathBuf)>,
    /// The uids of the pods that have a filesystem.
    pods: HashMap<Device, BTreeSet<String>>,
}

impl OnNode {
    /// As the node's mount table has it.
    fn read(mounter: &Mounter) -> io::Result<Self> {
        let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
        Ok(Self::of(table, &mounter.kubelet_dir))
    }

    fn of(table: Vec<Mount>, kubelet_dir: &Path) -> Self {
        let mut on_node = Self::default();
        for mount in table {
            if let Some(volume) = placeholder::volume_of(&mount) {
                on_node.placeholders.insert((mount.target.clone(), volume.to_owned()));
            }
            let Mount { target, device, .. } = mount;
            if let Some(uid) = pods::uid_of(&target, kubelet_dir) {
                on_node.pods.entry(device).or_default().insert(uid.to_owned());
            }
            on_node.at.insert((target, device));
        }
        on_node
    }

    /// Where a volume shows, and the fresh filesystem that it is given.
    fn places(&self, entry: &Entry) -> Vec<String> {
        let devices = devices(entry);
        let places = self.at.iter().filter(|(_, device)| devices.contains(&Some(*device))).map(|(target, _)| target);
        let mut places: Vec<_> = places.chain(self.placeholders_of(&entry.volume)).collect();
        places.sort();
        places.into_iter().take(PLACES).map(|target| target.to_string_lossy().into_owned()).collect()
    }

    /// Where a volume shows by a placeholder.
    fn placeholders_of(&self, volume: &Volume) -> impl Iterator<Item = &PathBuf> {
        self.placeholders.iter().filter(|(_, of)| *of == volume.plan.target).map(|(at, _)| at)
    }

    /// Which pods have it.
    fn pods(&self, mounter: &Mounter, entry: &Entry) -> Vec<Pod> {
        let uids = devices(entry).into_iter().flatten().filter_map(|device| self.pods.get(&device)).flatten();
        let behind = self.placeholders_of(&entry.volume).filter_map(|at| pods::uid_of(at, &mounter.kubelet_dir));
        let uids = uids.cloned().chain(behind.map(str::to_owned));
        let shown: BTreeSet<Pod> = uids.map(|uid| Pod { uid, name: None }).collect();
        let Volume { plan, history, .. } = &entry.volume;
        let own = own_pod(mounter, &plan.target, history.pod.clone());
        let others = shown.into_iter().filter(|pod| own.as_ref().is_none_or(|own| own.uid != pod.uid));
        own.iter().cloned().chain(others).collect()
    }
}

fn devices(entry: &Entry) -> [Option<Device>; 2] {
    [Some(entry.volume.identity.device), entry.successor.map(|fresh| fresh.device)]
}

/// The pod whose directory a target is in.
fn own_pod(mounter: &Mounter, target: &Path, name: Option<api::pod::PodName>) -> Option<Pod> {
    let uid = pods::uid_of(target, &mounter.kubelet_dir)?;
    Some(Pod { uid: uid.to_owned(), name })
}

/// As it is now, by its state, the node's mount table and the kernel's counters.
fn view_now(mounter: &Mounter, id: VolumeId, entry: &Entry, on_node: &OnNode) -> VolumeView {
    let volume = &entry.volume;
    let pods = on_node.pods(mounter, entry);
    let shows = |one: Identity| on_node.at.contains(&(volume.plan.target.clone(), one.device));
    // It is there before it is the volume's, and the old one's helper may have ended by then.
    let fresh_shows = entry.successor.is_some_and(shows);
    if !entry.state.has_helper() && !fresh_shows {
        let note = volume.not_healed().map(|why| format!("not healed: {why}"));
        return VolumeView { note, pods, ..volume.view(VolumeState::Dead) };
    }
    let waiting = mounter.connections.waiting(volume.identity).ok();
    let memory = entry.cgroup.as_ref().and_then(|cgroup| cgroup.memory());
    if let Some(since) = mounter.hangs.since(id).map(seconds) {
        let note = "no request is answered; `hostmount heal` kills its helper and starts a fresh one".to_owned();
        let (hung_since, note) = (Some(since), Some(note));
        return VolumeView { waiting, hung_since, note, pods, memory, ..volume.view(VolumeState::Hung) };
    }
    let by_placeholder = on_node.placeholders_of(volume).any(|at| *at == volume.plan.target);
    let state = if fresh_shows || shows(volume.identity) || by_placeholder {
        VolumeState::Mounted
    } else {
        VolumeState::Detached
    };
    VolumeView { waiting, note: volume.note().map(str::to_owned), pods, memory, ..volume.view(state) }
}

/// What the cgroup of its helper counts.
fn of_cgroup(entry: &Entry) -> HelperProcess {
    let Some(cgroup) = &entry.cgroup else { return HelperProcess::default() };
    let counted = cgroup.memory().map(|memory| (cgroup.path(), memory));
    let (path, memory) = counted.unzip();
    HelperProcess {
        cgroup: path,
        memory: memory.unwrap_or_default(),
        memory_limit: cgroup.memory_limit(),
        ..HelperProcess::default()
    }
}

/// What became of its options.
fn options(volume: &Volume) -> Option<Options> {
    let plan = &volume.plan;
    let given = || with_words(&volume.helper, plan.settings.command.is_some(), &plan.request.options);
    (volume.known != Known::MountAlone).then(|| Options {
        asked: without_secrets(&plan.asked).to_string(),
        given: without_secrets(&given()).to_string(),
        flags: plan.grant.flag_words(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_those_below_whose_directories_a_filesystem_shows() {
        let table = b"1 0 0:7 / /k/plugins/kubernetes.io/csi/d/h/globalmount rw - fuse.x s rw\n\
            2 0 0:7 / /k/pods/u2/volumes/kubernetes.io~csi/v/mount rw - fuse.x s rw\n\
            3 0 0:7 /sub /k/pods/u1/volume-subpaths/v/c/0 rw - fuse.x s rw\n\
            4 0 0:8 / /k/pods/u3/volumes/v rw - tmpfs t rw\n";
        let on_node = OnNode::of(mount_table::parse(table), Path::new("/k"));
        let uids = |minor| on_node.pods.get(&Device { major: 0, minor }).cloned().unwrap_or_default();
        assert_eq!(uids(7), BTreeSet::from(["u1".to_owned(), "u2".to_owned()]));
        assert_eq!(uids(8), BTreeSet::from(["u3".to_owned()]));
        assert_eq!(on_node.at.len(), 4);
    }
}
