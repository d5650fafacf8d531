//! What others are told about volumes: those that are there, and the last ones that were.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::{Entry, Life, locked};
use crate::helper::namespace::in_words_of_the_node;
use crate::mounter::Mounter;
use crate::mounter::heal::obstacle;
use crate::policy::Admitted;
use api::volume::{VolumeDetail, VolumeState, VolumeView};
use linux::mount_table::{self, Device};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many volumes are remembered after their end: at 64 KiB of words each at most, a bounded amount.
const REMEMBERED: usize = 100;

/// The last volumes that ended or failed, one for each target, the latest last.
#[derive(Debug, Default)]
pub(super) struct Past(VecDeque<VolumeDetail>);

impl Past {
    /// Keeps what is known of a volume that has come to its end just now.
    pub(super) fn remember(&mut self, view: VolumeView, lines: Vec<String>) {
        self.0.retain(|past| past.view.target != view.target);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(VolumeDetail { view, ended: Some(seconds(SystemTime::now())), lines });
    }
}

impl Entry {
    /// Keeps what is known of it.
    pub(super) fn pass_into(mut self, past: &mut Past) {
        if let Some(output) = &mut self.output {
            output.drain();
        }
        past.remember(self.view(VolumeState::Ended), self.words());
    }

    fn view(&self, state: VolumeState) -> VolumeView {
        let volume = &self.volume;
        let device = volume.identity.device.to_string();
        view(&volume.admitted, state, volume.helper.clone(), device, seconds(volume.since))
    }

    /// As it is now, by what the node's mount table and the kernel's counters show.
    fn view_now(&self, id: u64, mounter: &Mounter, on_node: &HashSet<(PathBuf, Device)>) -> VolumeView {
        let volume = &self.volume;
        if self.engine.is_none() {
            let note = obstacle(mounter, volume).map(|obstacle| format!("not healed: {obstacle}"));
            return VolumeView { note, ..self.view(VolumeState::Dead) };
        }
        let shows = on_node.contains(&(volume.admitted.target.clone(), volume.identity.device));
        let waiting = mounter.connections.waiting(volume.identity).ok();
        match mounter.hangs.since(id).map(seconds) {
            Some(since) => {
                let note = "no request is answered; `hostmount heal` ends its helper and starts a fresh one".to_owned();
                let view = self.view(VolumeState::Hung);
                VolumeView { waiting, hung_since: Some(since), note: Some(note), ..view }
            }
            None => {
                let view = self.view(if shows { VolumeState::Mounted } else { VolumeState::Detached });
                VolumeView { waiting, note: volume.lost.note().map(str::to_owned), ..view }
            }
        }
    }
}

/// A volume that never was one: its helper could not mount it.
pub(super) fn failed(admitted: &Admitted, helper: String) -> VolumeView {
    view(admitted, VolumeState::Failed, helper, String::new(), seconds(SystemTime::now()))
}

fn view(admitted: &Admitted, state: VolumeState, helper: String, device: String, since: u64) -> VolumeView {
    let target = admitted.target.to_string_lossy().into_owned();
    let (fstype, source) = (admitted.request.fstype.clone(), admitted.request.source.clone());
    VolumeView { target, fstype, source, state, helper, device, since, waiting: None, hung_since: None, note: None }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All volumes, as the node's mount table shows them just now (read once).
pub fn views(mounter: &Mounter) -> io::Result<Vec<VolumeView>> {
    let on_node = on_node(mounter)?;
    let volumes = locked(&mounter.registry.volumes);
    let there = volumes.by_id.iter().filter(|(_, entry)| entry.life != Life::Retired);
    Ok(there.map(|(id, entry)| entry.view_now(*id, mounter, &on_node)).collect())
}

/// The volume at `target`: the topmost that is there, or else the last one that was or should have been.
pub fn look(mounter: &Mounter, target: &Path) -> io::Result<Option<VolumeDetail>> {
    let on_node = on_node(mounter)?;
    let volumes = locked(&mounter.registry.volumes);
    let here = |entry: &Entry| entry.life != Life::Retired && entry.volume.admitted.target == target;
    let there = volumes.by_id.iter().rfind(|(_, entry)| here(entry)).map(|(id, entry)| {
        let view = entry.view_now(*id, mounter, &on_node);
        VolumeDetail { view, ended: None, lines: entry.words() }
    });
    let found = there.or_else(|| volumes.past.0.iter().find(|past| Path::new(&past.view.target) == target).cloned());
    Ok(found.map(|found| VolumeDetail { lines: in_words_of_the_node(&mounter.state, &found.lines), ..found }))
}

/// What is mounted where on the node.
fn on_node(mounter: &Mounter) -> io::Result<HashSet<(PathBuf, Device)>> {
    let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    Ok(table.into_iter().map(|mount| (mount.target, mount.device)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_target_and_not_too_many() {
        let mut past = Past::default();
        let mut end = |target: String, word: &str| {
            let view = VolumeView { target, ..VolumeView::example() };
            past.remember(view, vec![word.to_owned()]);
        };
        (0..REMEMBERED).for_each(|number| end(format!("/mnt/{number}"), "first"));
        end("/mnt/0".into(), "second");
        end("/mnt/new".into(), "first");
        let found = |target: &str| past.0.iter().find(|past| past.view.target == target).map(|past| &past.lines[0]);
        assert_eq!(past.0.len(), REMEMBERED);
        assert_eq!(found("/mnt/0").unwrap(), "second");
        assert_eq!(found("/mnt/1"), None, "the oldest goes first");
        assert!(found("/mnt/new").is_some());
    }
}
