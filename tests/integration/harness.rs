//! How tests are listed and run. Each module lists its own, with what each of them needs and how it is run:
//!
//! ```text
//! pub(crate) fn tests() -> Vec<Test> {
//!     tests![
//!         bad_input_gets_a_clear_answer.needs(&["bindfs"]).quick(),
//!         a_helper_that_ends_too_early,
//!     ]
//! }
//! ```
//!
//! A function that is in no list is dead code, and that fails `make check`. The arguments and the output are as with
//! Rust's own harness, which cannot ignore a test for a reason that is found at run time: here one that cannot run is
//! ignored with a reason. `HOSTMOUNT_TESTS=must-run` makes it fail, but for one that needs a later kernel, which nobody can install for a
//! test; `HOSTMOUNT_TESTS=every` makes that fail too. `HOSTMOUNT_TESTS=quick` leaves out all but the quick ones.
//!
//! Tests run at the same time, as many as there are cores, in any combination: each has machines of its own.

use crate::node::{self, cgroups, notes};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests by the names of their functions, each with its requirements: see [`Test`].
macro_rules! tests {
    ($($name:ident $(.$how:ident($($what:expr),*))*),* $(,)?) => {
        vec![$($crate::harness::Test::new(stringify!($name), $name)$(.$how($($what),*))*),*]
    };
}
pub(crate) use tests;

/// A test, and what it needs: a test node (root and /dev/fuse), unless it runs [`Test::anywhere`].
pub(crate) struct Test {
    name: String,
    run: Box<dyn FnOnce() + Send>,
    node: bool,
    programs: Vec<&'static str>,
    cgroups: bool,
    linux: (u32, u32),
    special: Option<fn() -> Option<String>>,
    quick: bool,
    alone: bool,
}

impl Test {
    pub(crate) fn new(name: &str, run: impl FnOnce() + Send + 'static) -> Self {
        Self {
            name: name.to_owned(),
            run: Box::new(run),
            node: true,
            programs: Vec::new(),
            cgroups: false,
            linux: (0, 0),
            special: None,
            quick: false,
            alone: false,
        }
    }

    /// It needs these programs: what Debian's packages bring by its name, what is fetched by its path (with a slash).
    pub(crate) fn needs(mut self, programs: &[&'static str]) -> Self {
        self.programs.extend(programs);
        self
    }

    /// It needs cgroups that a machine can have for itself.
    pub(crate) fn needs_cgroups(mut self) -> Self {
        self.cgroups = true;
        self
    }

    /// It needs a kernel of this version, or a later one.
    pub(crate) fn needs_linux(mut self, major: u32, minor: u32) -> Self {
        self.linux = (major, minor);
        self
    }

    /// It needs no test node: users other than root can run it, too.
    pub(crate) fn anywhere(mut self) -> Self {
        self.node = false;
        self
    }

    /// It cannot run if this returns a reason.
    pub(crate) fn needs_no(mut self, obstacle: fn() -> Option<String>) -> Self {
        self.special = Some(obstacle);
        self
    }

    /// It is one of the tests to run while you work: it takes a second or two, and needs no server.
    pub(crate) fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// No other test runs at the same time.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Why it cannot run here.
    fn obstacle(&self) -> Option<String> {
        let (major, minor) = self.linux;
        let node = || self.node.then(node::obstacle).flatten();
        let program = || node::missing(&self.programs);
        let kernel = || self.lacks_kernel().then(|| format!("it needs Linux {major}.{minor}"));
        let cgroups = || self.cgroups.then(cgroups::obstacle).flatten();
        let special = || self.special.and_then(|obstacle| obstacle());
        node().or_else(program).or_else(kernel).or_else(cgroups).or_else(special)
    }

    fn lacks_kernel(&self) -> bool {
        running_linux() < self.linux
    }

    fn run(self, show: bool) -> Result<Completion, Failed> {
        match self.obstacle() {
            Some(why) if must_run() && (asked_for(EVERY) || !self.lacks_kernel()) => {
                return Err(format!("it must run: {why}").into());
            }
            Some(why) => return Ok(Completion::ignored_with(why)),
            None => {}
        }
        let _turn = Turn::wait(self.alone);
        if !show {
            notes::keep();
        }
        let done = catch_unwind(AssertUnwindSafe(self.run));
        let said = notes::take();
        match done {
            Ok(()) => Ok(Completion::Completed),
            Err(_) if said.contains(notes::PANICKED) => Err(said.into()),
            // Another thread's, which the test has waited for.
            Err(panic) => {
                let words = panic.downcast_ref::<&str>().copied();
                let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
                Err(format!("{said}{}", notes::elsewhere(words).unwrap_or_else(|| words.to_owned())).into())
            }
        }
    }
}

/// The right to run, beside others or alone.
enum Turn {
    Beside(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl Turn {
    fn wait(alone: bool) -> Self {
        static RUNNING: RwLock<()> = RwLock::new(());
        if alone { Self::Alone(RUNNING.write().unwrap()) } else { Self::Beside(RUNNING.read().unwrap()) }
    }
}

/// The value of `HOSTMOUNT_TESTS`.
fn asked_for(word: &str) -> bool {
    env::var_os("HOSTMOUNT_TESTS").is_some_and(|value| value == word)
}

/// Asked for so, no test is ignored.
const EVERY: &str = "every";

/// Whether a test that cannot run fails.
pub(crate) fn must_run() -> bool {
    asked_for("must-run") || asked_for(EVERY)
}

/// The running kernel.
pub(crate) fn running_linux() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Runs the tests of all modules, or the ones that the command line names.
pub(crate) fn run<const MODULES: usize>(modules: [(&str, Vec<Test>); MODULES]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // As in Rust's own harness.
    let threads = || env::var("RUST_TEST_THREADS").ok()?.parse().ok();
    arguments.test_threads = arguments.test_threads.or_else(threads);
    let show = arguments.nocapture || arguments.show_output;
    notes::note_panics();

    let mut tests = Vec::new();
    for (module, listed) in modules {
        tests.extend(listed.into_iter().map(|test| Test { name: format!("{module}::{}", test.name), ..test }));
    }
    tests.retain(|test| test.quick || !asked_for("quick"));
    // Last, when no other test has to wait for them.
    tests.sort_by_key(|test| test.alone);
    let trial = |test: Test| Trial::ignorable_test(test.name.clone(), move || test.run(show));
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}
