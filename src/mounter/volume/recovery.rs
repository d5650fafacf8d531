//! Finding the volumes of an earlier mounter again: from its records, and where those are lost, from the mount tables and
//! the processes.
//!
//! Runs in the mounter, on the main thread, before it takes requests. A helper that serves a volume is never killed for want
//! of a record.

use super::keep::keep;
use super::{History, Known, Volume};
use crate::config::settings::Upgrade;
use crate::engine::Engine;
use crate::engine::helper_processes::HelperProcesses;
use crate::engine::watch::Watch;
use crate::helper::launch::Serving;
use crate::helper::namespace;
use crate::helper::output::HelperOutput;
use crate::mounter::Mounter;
use crate::mounter::operation::upgrade::have_same_image;
use crate::node::mount_search::VisibleMounts;
use crate::node::target::Target;
use crate::observe::events;
use crate::policy::Plan;
use api::options::MountOptions;
use api::request::{Request, Switches};
use api::secret::Secrets;
use linux::mount_table::Mount;
use linux::processes::{self, PopulatedNamespace, Process};
use linux::sys::ask::Patience;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::SystemTime;
use tracing::{info, info_span, warn};

/// Takes in every volume that is there, and kills what an earlier mounter had begun and cannot finish any more.
pub fn recover(mounter: &Mounter) -> io::Result<()> {
    let namespaces = processes::mount_namespaces(Path::new(processes::OWN))?;
    let table = Process::first(&mounter.host_proc).mounts()?;
    let ours = Process::at(Path::new(processes::OWN), rustix::thread::gettid()).mounts()?;
    let recorded = mounter.registry.records().read(&mounter.configuration.get());
    // The list of connections is made, and numbered, anew when nobody has had it mounted.
    let renumbered = !table.iter().any(|mount| mount.fstype == "fusectl");
    if renumbered && !recorded.is_empty() {
        warn!(
            "fusectl is not mounted on the node: volumes whose helpers died while no mounter ran are not known any more; \
             mount it at start: mount -t fusectl none /sys/fs/fuse/connections"
        );
    }
    for volume in &recorded {
        let _span = volume.span().entered();
        let home = namespaces.iter().find(|home| home.id == volume.processes.namespace());
        if let Some(note) = volume.known.note() {
            warn!(event = events::FORGOTTEN, "{note}");
        }
        let home = home.map(|home| (home, home.mounts()));
        let is_its = |home: &PopulatedNamespace, mounts: &[Mount]| {
            namespace::is_home_of(mounts, &mounter.state, &volume.plan.target) && home.is_of_own_user_namespace()
        };
        match home.filter(|(home, mounts)| is_its(home, mounts)) {
            Some((home, mounts)) => {
                // The earlier mounter may have died before it could.
                let_go(home, namespace::mounted_in(&mounts, &mounter.state));
                let mut volume = volume.clone();
                if renumbered {
                    mounter.registry.records().drop(volume.identity);
                    // Its helper lives, so the device number is still its own.
                    volume.identity = mounter.connections.identify(volume.identity.device);
                }
                volume.earlier_image = !have_same_image(&ours, &mounts);
                take_in(mounter, volume, home);
            }
            // Its helper died while nobody looked: the main thread sees what is left of it.
            None => mounter.registry.add_ended(volume.clone()),
        }
    }
    let known: HashSet<_> = recorded.iter().map(|volume| volume.processes.namespace()).collect();
    for home in namespaces.iter().filter(|home| !known.contains(&home.id)) {
        let mounts = home.mounts();
        // Everybody can make mounts that look like those of a helper, but not in a mount namespace that is ours.
        if let Some(target) = namespace::target_of(&mounts, &mounter.state).filter(|_| home.is_of_own_user_namespace())
        {
            let _span = info_span!("volume", target = %target.display()).entered();
            let earlier_image = !have_same_image(&ours, &mounts);
            take_in_without_record(mounter, home, &mounts, &target, &table, earlier_image)?;
        }
    }
    Ok(())
}

fn take_in(mounter: &Mounter, volume: Volume, home: &PopulatedNamespace) {
    match Watch::over(volume.processes.clone()) {
        Ok(None) => mounter.registry.add_ended(volume),
        Ok(Some(watch)) => {
            info!(event = events::ADOPTED, device = %volume.identity.device, "an earlier mounter's volume is taken in");
            let output = HelperOutput::of_processes(&home.processes, &mounter.state, &volume.plan.request.source);
            let cgroup = mounter.cgroups.of(home.processes[0].pid());
            let upgrade = volume.earlier_image && volume.plan.settings.upgrade == Upgrade::Swap;
            let id = mounter.registry.add(volume, Serving { engine: Engine::Adopted(watch), output, cgroup });
            if mounter.can_hold {
                keep(mounter, id, home.processes.iter().cloned());
            }
            if upgrade {
                mounter.to_do.upgrade(id);
            }
        }
        Err(error) => warn!("cannot watch the helper of an earlier mounter's volume: {error}"),
    }
}

/// A helper of an earlier mounter's of which there is no record: it was starting when that one died, or records are lost.
fn take_in_without_record(
    mounter: &Mounter,
    home: &PopulatedNamespace,
    mounts: &[Mount],
    target: &Path,
    table: &[Mount],
    earlier_image: bool,
) -> io::Result<()> {
    let here = namespace::mounted_in(mounts, &mounter.state);
    let shown = match here {
        // Not let go of yet. Attached on the node already?
        Some(mount) => {
            let filesystem = mounter.connections.identify(mount.device);
            let visible = mounter.search.find(filesystem, &mounter.connections)?;
            let elsewhere = |visible: &VisibleMounts| visible.mounts.iter().any(|mount| !mount.is_in(home.id));
            visible.filter(elsewhere).map(|_| Mount::clone(mount))
        }
        // Let go of, if it ever mounted: then the node shows it, unless another volume does.
        None => {
            let there = table.iter().rfind(|mount| mount.target == target).filter(|mount| mount.is_fuse());
            there.filter(|mount| !mounter.registry.knows(mounter.connections.identify(mount.device))).cloned()
        }
    };
    match shown {
        Some(mount) => {
            let_go(home, here);
            let Some(mut volume) = volume_from(mounter, &mount, target, home) else { return Ok(()) };
            volume.earlier_image = earlier_image;
            volume.known.note().into_iter().for_each(|note| warn!(event = events::FORGOTTEN, "{note}"));
            take_in(mounter, volume, home);
        }
        None if here.is_none() && home.processes.iter().any(|process| process.has_open(Path::new("/dev/fuse"))) => {
            warn!("processes of an earlier mounter's helper are left alone: they may serve a pod still");
        }
        None => {
            info!("a helper that was starting when the earlier mounter ended is killed");
            // Removed when they are out of it.
            drop(mounter.cgroups.of(home.processes[0].pid()));
            HelperProcesses::of_namespace(home.id).kill()?;
        }
    }
    Ok(())
}

/// What can be told of a volume by its mount alone.
fn volume_from(mounter: &Mounter, mount: &Mount, target: &Path, home: &PopulatedNamespace) -> Option<Volume> {
    let request = Request {
        fstype: mount.fstype.to_string_lossy().into_owned(),
        source: mount.source.to_string_lossy().into_owned(),
        target: target.to_string_lossy().into_owned(),
        options: MountOptions::default(),
        switches: Switches::default(),
        secrets: Secrets::new(),
    };
    Some(Volume {
        plan: Plan::recorded(&mounter.configuration.get(), request).ok()?,
        helper: home.processes[0].name(),
        identity: mounter.connections.identify(mount.device),
        since: SystemTime::now(),
        processes: HelperProcesses::of_namespace(home.id),
        known: Known::MountAlone,
        earlier_image: false,
        history: History::default(),
    })
}

/// Detaches the helper's own copy of its filesystem, `here`.
fn let_go(home: &PopulatedNamespace, here: Option<&Mount>) {
    let Some(here) = here else { return };
    let done = home.processes[0].open_mount_namespace().and_then(|namespace| {
        // The helper may have put a link into the path to it, that leads into a filesystem which never answers.
        namespace.visit(|| Target::of_mount(here, Patience::USUAL).map(|root| root.detach()))
    });
    match done {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => warn!("cannot let go of the helper's own copy: {error}"),
        Ok(Err(error)) => warn!("cannot let go of the helper's own copy: {}", api::exit::chain(&error)),
        Err(error) => warn!("cannot let go of the helper's own copy: {}", api::exit::chain(&error)),
    }
}
