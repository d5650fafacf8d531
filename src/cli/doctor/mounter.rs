//! The mounter that runs, its sockets, its programs on the node, and kubelet's registration of the CSI driver.
//!
//! Runs in the container; it asks the mounter, and looks at files.

use super::finding::Found;
use crate::cli::show::words;
use crate::config::Config;
use crate::helper::find::served_types;
use crate::node::programs::{Places, Programs};
use api::about::{About, Configuration};
use api::client::Client;
use api::exit::chain;
use api::origin::Origin;
use api::volume::VolumeView;
use linux::mount_namespace::MountNamespace;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The mounter, if it answers: what it says of itself, and its volumes.
pub(super) type Running = Result<(About, Vec<VolumeView>), String>;

/// Asks it.
pub(super) fn ask(client: &Client) -> Running {
    let words = |error: api::client::CallError| error.into_failure().message;
    let volumes = client.list().map_err(words)?;
    // One of an earlier version does not know the question.
    Ok((client.about().unwrap_or_default(), volumes))
}

/// Whether it answers. It need not run: an image can be tried before it serves.
pub(super) fn answers(running: &Running) -> Found {
    match running {
        Err(why) => Found::warning("mounter", why, "start `hostmount serve`"),
        Ok((about, volumes)) => {
            let count = words::count(volumes.len(), "volume");
            let bad = volumes.iter().filter(|volume| ["dead", "hung"].contains(&volume.state.word()));
            let bad: Vec<_> = bad.map(|volume| format!("{} is {}", volume.target, volume.state.word())).collect();
            let since = words::age(words::now().saturating_sub(about.started));
            let since = if about.started > 0 {
                format!(", for {since}, with the engine {}", about.engine)
            } else {
                String::new()
            };
            let words = format!("answers; it has {count}{since}");
            if bad.is_empty() {
                return Found::ok("mounter", words);
            }
            Found::warning(
                "mounter",
                format!("{words}\n{}", bad.join("\n")),
                "hostmount status TARGET and hostmount logs TARGET say more",
            )
        }
    }
}

/// Whether the mounter that runs is of this program's version.
pub(super) fn version(running: &Running) -> Option<Found> {
    let (about, _) = running.as_ref().ok()?;
    let ours = env!("CARGO_PKG_VERSION");
    Some(if about.version == ours {
        Found::ok("version", format!("the mounter and this program are hostmount {ours}"))
    } else {
        let theirs = if about.version.is_empty() { "of an earlier version" } else { about.version.as_str() };
        Found::warning(
            "version",
            format!("this program is hostmount {ours}, and the mounter that runs is {theirs}"),
            "restart hostmount's pod, so that both are of one image; volumes go on meanwhile",
        )
    })
}

/// Whether what is in the configuration's file is in force.
pub(super) fn in_force(running: &Running) -> Option<Found> {
    let (About { configuration, .. }, _) = running.as_ref().ok()?;
    let Configuration { file, since, problem, at_restart } = configuration;
    if file.is_empty() {
        // A mounter of an earlier version.
        return None;
    }
    let since = format!("the mounter has had its configuration in force since {}", words::time(*since));
    Some(match problem {
        Some(problem) => Found::warning(
            "in-force",
            format!("{since}, and not what is in {file} now: {problem}"),
            "correct the file: it is read again when it changes",
        ),
        None if !at_restart.is_empty() => Found::warning(
            "in-force",
            format!("{since}, but for what a running mounter cannot change: {}", at_restart.join(", ")),
            "restart hostmount's pod; volumes go on meanwhile",
        ),
        None => Found::ok("in-force", format!("{since}, from {file}")),
    })
}

/// Whether each door's socket is there.
pub(super) fn sockets(running: &Running) -> Option<Found> {
    let (about, _) = running.as_ref().ok()?;
    let is_there = |path: &str| fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let missing: Vec<_> = about
        .sockets
        .iter()
        .filter(|(_, path)| !is_there(path))
        .map(|(origin, path)| format!("{path} for {origin}"))
        .collect();
    let there: Vec<_> = about.sockets.iter().map(|(origin, _)| origin.name()).collect();
    Some(if missing.is_empty() {
        Found::ok("sockets", format!("for {}", there.join(", ")))
    } else {
        Found::warning(
            "sockets",
            format!("not there any more: {}", missing.join(", ")),
            "restart the mounter, and let nothing else remove files from its directory",
        )
    })
}

/// Whether the programs on the node are those of this image.
pub(super) fn programs(running: &Running, node: Option<&MountNamespace>, config: &Config) -> Option<Found> {
    let (about, _) = running.as_ref().ok()?;
    let places =
        Places { programs: about.programs.clone().map(Into::into), plugins: about.plugins.clone().map(Into::into) };
    if !places.any() {
        return Some(Found::ok("programs", "the mounter installs none on the node (serve --install)"));
    }
    let advice = "restart the mounter, which installs its own; its log says why if it cannot (node.not-installed)";
    let programs = match Programs::of_this_container(served_types(config)) {
        Ok(programs) => programs,
        Err(error) => {
            return Some(Found::warning(
                "programs",
                chain(&error),
                "the image must have hostmount-shim beside hostmount",
            ));
        }
    };
    let looked = node.and_then(|node| node.visit(|| (places.usable(), places.differ(&programs))).ok());
    Some(match looked.map(|(usable, differ)| usable.map(|()| differ)) {
        Some(Err(error)) => Found::warning(
            "programs",
            chain(&error),
            "mend that and restart the mounter, which installs its own, or have it install into another directory (--install)",
        ),
        None => Found::warning("programs", "the node cannot be visited", "see the finding 'node'"),
        Some(Ok(differ)) if differ.is_empty() => {
            let places =
                [&about.programs, &about.plugins].into_iter().flatten().cloned().collect::<Vec<_>>().join(" and ");
            Found::ok("programs", format!("those in {places} on the node are this image's"))
        }
        Some(Ok(differ)) => {
            let paths: Vec<_> = differ.iter().map(|path| path.display().to_string()).collect();
            Found::warning(
                "programs",
                format!("missing on the node, or of another version: {}", paths.join(", ")),
                advice,
            )
        }
    })
}

/// Whether kubelet has been offered the CSI driver, if one may ask.
pub(super) fn csi(running: &Running, node: Option<&MountNamespace>, kubelet_dir: &Path) -> Option<Found> {
    let (about, _) = running.as_ref().ok()?;
    if !about.sockets.iter().any(|(origin, _)| *origin == Origin::Csi) {
        return Some(Found::ok("csi", "its door is closed: no CSI driver asks this mounter"));
    }
    let registry = kubelet_dir.join("plugins_registry");
    let look = || {
        let names = fs::read_dir(&registry).into_iter().flatten().flatten().map(|entry| entry.path());
        let ours = names.filter(|path| path.to_string_lossy().contains("hostmount"));
        let sockets = |path: &std::path::PathBuf| {
            let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            std::iter::once(path.clone())
                .chain(below)
                .any(|path| fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()))
        };
        ours.filter(sockets).map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    Some(match node.and_then(|node| node.visit(look).ok()) {
        Some(found) if !found.is_empty() => Found::ok("csi", format!("offered to kubelet at {}", found.join(", "))),
        _ => Found::warning(
            "csi",
            format!(
                "its door is open, and {} on the node has no socket of a driver of hostmount's",
                registry.display()
            ),
            "look at the log of the container hostmount-csi (csi.not-registered)",
        ),
    })
}
