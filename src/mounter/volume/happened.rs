//! What happened to volumes, for those who ask: the events of the [journal](crate::observe::journal), with the pods that had them.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::pods;
use crate::mounter::Mounter;
use crate::observe::events::SHOWN;
use api::event::{Events, VolumeEvent};
use api::pod::{Pod, PodName};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// How many pods are named of one volume.
const PODS: usize = 100;

/// The events after that number.
pub fn events(mounter: &Mounter, after: u64) -> Events {
    let mut events = mounter.journal.after(after);
    if events.events.is_empty() {
        return events;
    }
    // Where a volume of many pods was shown may be long ago.
    let all = if after == 0 { events.events.clone() } else { mounter.journal.after(0).events };
    add_pods(&mut events.events, &all, &mounter.kubelet_dir);
    pods::name(mounter, events.events.iter_mut().flat_map(|event| &mut event.pods));
    events
}

/// Gives `events`, which are some of `all`, the pods that had the volumes: the one below whose directory a volume was, and those to whose
/// directories it was shown from there.
fn add_pods(events: &mut [VolumeEvent], all: &[VolumeEvent], kubelet_dir: &Path) {
    let mut names: HashMap<&str, &PodName> = HashMap::new();
    let mut shown: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for event in all {
        let Some(uid) = pods::uid_of(Path::new(&event.target), kubelet_dir) else { continue };
        names.extend(event.said.iter().map(|name| (uid, name)));
        if event.event == SHOWN
            && let Some(source) = &event.source
        {
            shown.entry(source).or_default().insert(uid);
        }
    }
    let pod = |uid: &str| Pod { uid: uid.to_owned(), name: names.get(uid).map(|name| PodName::clone(name)) };
    for event in events {
        event.pods = match pods::uid_of(Path::new(&event.target), kubelet_dir) {
            Some(uid) => vec![pod(uid)],
            None => shown.get(event.target.as_str()).into_iter().flatten().take(PODS).map(|uid| pod(uid)).collect(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_many_pods_is_all_of_theirs() {
        let event = |event: &str, target: &str| VolumeEvent {
            event: event.into(),
            target: target.into(),
            ..Default::default()
        };
        let shown = |uid: &str, name: Option<PodName>| VolumeEvent {
            source: Some("/k/plugins/h/globalmount".into()),
            said: name,
            ..event(SHOWN, &format!("/k/pods/{uid}/volumes/v/mount"))
        };
        let name = PodName::new("shop", "web-0");
        let all = [
            shown("u1", name.clone()),
            shown("u2", None),
            shown("u1", None),
            event("volume.dead", "/k/plugins/h/globalmount"),
            event("volume.mounted", "/mnt/a"),
        ];
        let mut events = all.clone();
        add_pods(&mut events, &all, Path::new("/k"));
        let pods: Vec<Vec<&str>> =
            events.iter().map(|event| event.pods.iter().map(|pod| pod.uid.as_str()).collect()).collect();
        assert_eq!(pods, [vec!["u1"], vec!["u2"], vec!["u1"], vec!["u1", "u2"], vec![]]);
        assert_eq!((&events[2].pods[0].name, &events[3].pods[0].name), (&name, &name));
    }
}
