//! The configuration that is in force, and its file: a change of it is taken over while the mounter runs.
//!
//! Runs in the mounter: the main thread takes a change over, all threads read. A file that is not valid, or gone, changes nothing: the
//! configuration before it stays in force, and whoever looks is told so.

use crate::config::{Config, DEFAULT_PATH};
use crate::observe::events;
use api::about::Configuration;
use api::exit::chain;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
use tracing::{error, info, warn};

use super::volume::seconds;

/// What is in force.
#[derive(Debug)]
pub struct InForce {
    file: PathBuf,
    config: RwLock<Arc<Config>>,
    told: Mutex<Configuration>,
}

impl InForce {
    /// What was read at the start, from `file`, or else from the default file if that is there.
    pub fn new(config: Config, file: Option<PathBuf>) -> Self {
        let file = file.unwrap_or_else(|| DEFAULT_PATH.into());
        let told = Configuration {
            file: file.to_string_lossy().into_owned(),
            since: seconds(SystemTime::now()),
            ..Configuration::default()
        };
        Self { file, config: RwLock::new(Arc::new(config)), told: Mutex::new(told) }
    }

    /// The configuration, as it is now. Whoever asks twice may get two.
    pub fn get(&self) -> Arc<Config> {
        // What it holds is whole at every moment.
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What whoever looks is told.
    pub fn told(&self) -> Configuration {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again. Returns what is in force from now on, if that is something new.
    pub fn reload(&self) -> Option<Arc<Config>> {
        let now = self.get();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // It is named here, so that one which is gone is an error and not the defaults.
        let (next, fixed) = match Config::load(Some(&self.file)) {
            Ok(written) => now.changed_to(written),
            Err(problem) => {
                let problem = chain(&problem);
                // Each change of the directory's leads here.
                if told.problem.as_ref() != Some(&problem) {
                    error!(event = events::CONFIGURATION_REFUSED, "the configuration stays as it is: {problem}");
                }
                told.problem = Some(problem);
                return None;
            }
        };
        told.problem = None;
        let fixed: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
        if fixed != told.at_restart && !fixed.is_empty() {
            let keys = fixed.join(", ");
            warn!(
                event = events::CONFIGURATION_REFUSED,
                keys, "these settings are taken over when the mounter is restarted: {keys}"
            );
        }
        told.at_restart = fixed;
        if next == *now {
            return None;
        }
        told.since = seconds(SystemTime::now());
        info!(event = events::CONFIGURATION_TAKEN, file = %self.file.display(), "the configuration is taken over");
        let next = Arc::new(next);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        Some(next)
    }

    /// Watches the file, and its directory: what is changed by rename(2), as editors and ConfigMaps are, is another file.
    pub(super) fn watch(&self) -> io::Result<Watched> {
        let watched = Watched(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        watched.add(self);
        Ok(watched)
    }
}

/// Readable when the file has changed, or something else in its directory.
#[derive(Debug)]
pub(super) struct Watched(OwnedFd);

impl Watched {
    /// Takes in what has happened. The file may be another one now.
    pub(super) fn take_in(&self, in_force: &InForce) {
        let mut buffer = [0; 4096];
        while !matches!(rustix::io::read(&self.0, &mut buffer), Ok(0) | Err(Errno::AGAIN)) {}
        self.add(in_force);
    }

    fn add(&self, InForce { file, .. }: &InForce) {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        for (path, flags) in [(directory, changes), (file, WatchFlags::CLOSE_WRITE)] {
            match inotify::add_watch(&self.0, path, flags) {
                // There need not be one.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => warn!("a change of {} will not be noticed before SIGHUP: {errno}", path.display()),
            }
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn ready(watched: &Watched) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(watched, PollFlags::IN)], Some(&at_once)).unwrap() == 1
    }

    #[test]
    fn a_change_of_whatever_kind_is_noticed_and_what_is_wrong_changes_nothing() {
        let directory = std::env::temp_dir().join(format!("hostmount-in-force-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("..1")).unwrap();
        // As kubelet makes a ConfigMap's files.
        fs::write(directory.join("..1/config.toml"), "heal = true").unwrap();
        symlink("..1", directory.join("..data")).unwrap();
        let file = directory.join("config.toml");
        symlink("..data/config.toml", &file).unwrap();
        let in_force = InForce::new(Config::load(Some(&file)).unwrap(), Some(file.clone()));
        let watched = in_force.watch().unwrap();
        let heals = |config: &Config| config.settings_of("x").heal;
        let change = |work: &dyn Fn()| {
            assert!(!ready(&watched));
            work();
            assert!(ready(&watched), "it is not noticed");
            watched.take_in(&in_force);
            in_force.reload()
        };
        let next = change(&|| {
            fs::create_dir(directory.join("..2")).unwrap();
            fs::write(directory.join("..2/config.toml"), "heal = false").unwrap();
            symlink("..2", directory.join("..data_tmp")).unwrap();
            fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
        });
        assert!(!heals(&next.unwrap()));
        assert_eq!(change(&|| fs::write(&file, "heal = nonsense").unwrap()), None);
        assert!(!heals(&in_force.get()) && in_force.told().problem.is_some());
        assert_eq!(change(&|| fs::remove_file(&file).unwrap()), None);
        assert!(in_force.told().problem.unwrap().contains("cannot read"), "one that is gone is not the defaults");
        let next =
            change(&|| fs::write(&file, "heal = true\nkubelet_dir = '/k'\n[helpers]\nprocess_limit = 7\n").unwrap());
        assert!(heals(&next.unwrap()));
        let told = in_force.told();
        assert_eq!((told.problem, told.at_restart), (None, vec!["kubelet_dir".to_owned(), "[helpers]".to_owned()]));
        assert_eq!(in_force.get().kubelet_dir, Path::new("/var/lib/kubelet"));
        assert_eq!(change(&|| fs::write(directory.join("other"), "x").unwrap()), None);
        fs::remove_dir_all(directory).unwrap();
    }
}
