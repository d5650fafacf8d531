//! What a process in a pod does with a volume by path, over and over, and every call that failed.
//!
//! Runs in the tests' process, on threads that stand in the pod.

use super::Place;
use rustix::fs::{Access, Dir, Mode, OFlags, access, open, statfs};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// How many threads there are for a directory.
const THREADS: usize = 4;

/// What a call that failed has left behind must not be in the way of a later round, nor of a later [`use_while`].
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Calls by path that were made.
    pub calls: u64,
    /// Those that failed: the call, and what it answered.
    pub failed: BTreeMap<String, u64>,
    /// Those that answered "no such file" or "exists", and what they were to do has been done: the helper died between the deed
    /// and the answer, and the kernel asked again.
    pub done_twice: BTreeMap<String, u64>,
    /// Reads and listings of what was open when the helper died.
    pub open_files: BTreeMap<String, u64>,
    /// mkdir and its like that failed.
    pub makers: BTreeMap<String, u64>,
    /// And how often they were called.
    pub makers_calls: u64,
}

impl Outcome {
    fn add(mut self, other: Self) -> Self {
        self.calls += other.calls;
        self.makers_calls += other.makers_calls;
        for (all, more) in [
            (&mut self.failed, other.failed),
            (&mut self.done_twice, other.done_twice),
            (&mut self.open_files, other.open_files),
            (&mut self.makers, other.makers),
        ] {
            more.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
        }
        self
    }

    fn call<T>(&mut self, what: &str, done: io::Result<T>) -> Option<T> {
        self.calls += 1;
        done.map_err(|error| count(&mut self.failed, what, &error)).ok()
    }

    /// A call that cannot be repeated: `effect` is whether what it was to do has been done.
    fn call_once(&mut self, what: &str, done: io::Result<()>, effect: impl FnOnce() -> bool) {
        self.calls += 1;
        match done {
            Err(error) if [ErrorKind::NotFound, ErrorKind::AlreadyExists].contains(&error.kind()) && effect() => {
                count(&mut self.done_twice, what, &error);
            }
            Err(error) => count(&mut self.failed, what, &error),
            Ok(()) => {}
        }
    }

    /// With what was open.
    fn with_open<T>(&mut self, what: &str, done: io::Result<T>) {
        if let Err(error) = done {
            count(&mut self.open_files, what, &error);
        }
    }

    fn make(&mut self, what: &str, done: io::Result<()>) {
        self.makers_calls += 1;
        if let Err(error) = done {
            count(&mut self.makers, what, &error);
        }
    }
}

fn count(all: &mut BTreeMap<String, u64>, what: &str, error: &io::Error) {
    *all.entry(format!("{what}: {error}")).or_default() += 1;
}

/// Uses `directories`, in which there are the files `f`, in the pod, while `work` runs.
pub fn use_while(pod: &Place, directories: &[String], work: impl FnOnce() + Send) -> Outcome {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let users = scope.spawn(|| {
            pod.visit(|| {
                thread::scope(|scope| {
                    let threads = directories.iter().flat_map(|directory| (0..THREADS).map(move |n| (directory, n)));
                    let stop = &stop;
                    let users: Vec<_> = threads.map(|(at, n)| scope.spawn(move || use_until(at, n, stop))).collect();
                    users.into_iter().map(|user| user.join().unwrap()).fold(Outcome::default(), Outcome::add)
                })
            })
        });
        // Even if it panics.
        let _stop = Stop(&stop);
        work();
        drop(_stop);
        users.join().unwrap()
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn use_until(directory: &str, number: usize, stop: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
        let [old, new] = ["old", "new"].map(|name| format!("{directory}/{name}-{number}-{round}"));
        let served = format!("{directory}/f");
        if let Some(mut file) = outcome.call("open", File::open(&served)) {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            assert!(read.is_err() || text == "served\n", "{text:?}");
            outcome.with_open("read", read);
        }
        outcome.call("stat", fs::metadata(&served));
        outcome.call("access", access(&*served, Access::READ_OK).map_err(io::Error::from));
        outcome.call("statfs", statfs(directory).map_err(io::Error::from));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Some(list) = outcome.call("list", open(directory, flags, Mode::empty()).map_err(io::Error::from)) {
            let listed: Result<Vec<_>, _> = Dir::new(list).and_then(|list| list.collect());
            outcome.with_open("list", listed.map_err(io::Error::from));
        }
        if outcome.call("create", File::create(&old)).is_some() {
            outcome.call("chmod", fs::set_permissions(&old, PermissionsExt::from_mode(0o640)));
            let moved = || fs::exists(&old).is_ok_and(|there| !there) && fs::exists(&new).is_ok_and(|there| there);
            outcome.call_once("rename", fs::rename(&old, &new), moved);
            // Should it have failed.
            let removed = if fs::exists(&new).unwrap_or(true) { &new } else { &old };
            let gone = || fs::exists(removed).is_ok_and(|there| !there);
            outcome.call_once("unlink", fs::remove_file(removed), gone);
        }
        if number == 0 {
            outcome.make("mkdir", fs::create_dir(&old));
            outcome.make("rmdir", fs::remove_dir(&old));
            outcome.make("symlink", std::os::unix::fs::symlink("f", &old));
            let _ = fs::remove_file(&old);
            outcome.make("link", fs::hard_link(&served, &old));
            let _ = fs::remove_file(&old);
        }
    }
    outcome
}
