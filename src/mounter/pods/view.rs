//! What callers are told of volumes that programs of pods serve: kubelet, when it asks for one again, and those who list them.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::entry::{Entry, State};
use super::registry::Pods;
use super::{PodVolume, PodVolumeId};
use crate::mounter::Mounter;
use crate::mounter::volume::seconds;
use crate::node::connections::Identity;
use api::origin::Origin;
use api::pod::Pod;
use api::volume::{Stats, VolumeDetail, VolumeState, VolumeView};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often kubelet is told so. In between its calls succeed: one whose answer got lost must not keep a pod from starting, whose
/// program comes up with it.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// As what they are listed.
pub(super) const TYPE: &str = "program";

/// No program serves a volume.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Complaint {
    /// What is missing, and what to do.
    pub message: String,
    /// What its last program said.
    pub words: Vec<String>,
}

impl Pods {
    /// Whether volume `id` is this one, and what shows at its target.
    pub(super) fn is(&self, id: PodVolumeId, volume: &PodVolume, there: Identity) -> bool {
        let volumes = self.locked();
        volumes.by_id.get(&id).is_some_and(|entry| *entry.volume == *volume && entry.is(there))
    }

    /// What kubelet is to be told, if it is time for that: a program has `limit` to come.
    pub(super) fn complaint(&self, id: PodVolumeId, limit: Duration) -> Option<Complaint> {
        let now = Instant::now();
        let mut volumes = self.locked();
        let entry = volumes.by_id.get_mut(&id)?;
        let State::Waiting { since, .. } = entry.state else { return None };
        let waited = now.saturating_duration_since(since);
        let early = waited < limit && entry.words.is_empty();
        if early || entry.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_AGAIN) {
            return None;
        }
        entry.told = Some(now);
        Some(Complaint { message: missing(&entry.volume, waited, entry.had_program), words: entry.words.clone() })
    }

    /// All of them, as they are now.
    pub fn views(&self, mounter: &Mounter) -> Vec<VolumeView> {
        self.locked().by_id.values().map(|entry| entry.view(mounter)).collect()
    }

    /// The one at `target`.
    pub fn detail(&self, mounter: &Mounter, target: &Path) -> Option<VolumeDetail> {
        let volumes = self.locked();
        let entry = volumes.by_id.values().find(|entry| entry.volume.target == target)?;
        let places = vec![entry.volume.target.to_string_lossy().into_owned()];
        Some(VolumeDetail { places, ..VolumeDetail::of(entry.view(mounter), None, entry.words.clone()) })
    }

    /// How the one is that is this filesystem.
    pub fn condition(&self, mounter: &Mounter, filesystem: Identity) -> Option<Stats> {
        let volumes = self.locked();
        let entry = volumes.by_id.values().find(|entry| entry.is(filesystem))?;
        let VolumeView { state, waiting, hung_since, note, .. } = entry.view(mounter);
        Some(Stats { state, waiting, hung_since, note, space: None, heals: 0 })
    }
}

impl Entry {
    fn view(&self, mounter: &Mounter) -> VolumeView {
        let (state, helper, note) = match &self.state {
            State::Served { program, .. } => (VolumeState::Mounted, program.clone(), None),
            State::Waiting { since, .. } => {
                let note = missing(&self.volume, since.elapsed(), self.had_program);
                (VolumeState::Waiting, String::new(), Some(note))
            }
        };
        VolumeView {
            target: self.volume.target.to_string_lossy().into_owned(),
            fstype: TYPE.to_owned(),
            source: format!("{}/{}", self.volume.empty_dir, self.volume.name),
            state,
            helper,
            device: self.filesystem.device.to_string(),
            since: seconds(self.since),
            waiting: mounter.connections.waiting(self.filesystem).ok(),
            hung_since: None,
            note,
            origin: Some(Origin::Csi),
            pods: vec![Pod { uid: self.volume.pod.clone(), name: None }],
            memory: None,
            heals: 0,
            swaps: 0,
            hangs: 0,
        }
    }
}

/// What is missing while no program serves a volume, and what to do.
fn missing(volume: &PodVolume, waited: Duration, had_one: bool) -> String {
    let PodVolume { empty_dir, name, .. } = volume;
    let seconds = waited.as_secs();
    if had_one {
        return format!(
            "for {seconds} s no program has served the volume: its last one has ended, and none has asked at {name}.sock in the pod's \
             emptyDir '{empty_dir}' since and served it; look at its container"
        );
    }
    format!(
        "for {seconds} s no program has asked for the volume at {name}.sock in the pod's emptyDir '{empty_dir}': a container of the pod \
         must mount that emptyDir, and run the program with `hostmount-pod start`, or with hostmount's fusermount3 first in its PATH and \
         {name} in the emptyDir as its mount point"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let volume = PodVolume {
            target: "/t".into(),
            pod: "u".into(),
            empty_dir: "fuse".into(),
            name: "data".into(),
            read_only: false,
            host_users: true,
        };
        let words = missing(&volume, Duration::from_secs(75), false);
        for word in ["75 s", "data.sock", "emptyDir 'fuse'", "hostmount-pod start", "fusermount3"] {
            assert!(words.contains(word), "{word}: {words}");
        }
        assert!(missing(&volume, Duration::from_secs(5), true).contains("its last one has ended"));
    }
}
