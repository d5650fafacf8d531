//! The mounter's metrics, in the text format of Prometheus (OpenMetrics 1.0). docs/metrics.md lists the names.
//!
//! Runs in the mounter: counters on the thread of each operation; the [text] on the thread of the request for it.

pub mod text;

use api::exit::Exit;
use api::message::{Failure, Reason};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::{Duration, Instant};

/// Counters since the mounter started.
#[derive(Debug)]
pub struct Metrics {
    operations: Family<Counted, Counter>,
    durations: Family<Timed, Histogram, fn() -> Histogram>,
    steps: Family<StepTaken, Histogram, fn() -> Histogram>,
    failures: Family<Failed, Counter>,
    /// Volumes that began to hang.
    pub hangs: Counter,
    /// How long requests waited for the next helper when theirs had died, each death once.
    pub holds: Histogram,
    /// Processes that were started for files that are open in the filesystem of a helper that is gone.
    pub heirs: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    operation: Operation,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepTaken {
    step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    operation: Operation,
    reason: &'static str,
}

/// An operation on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
pub enum Operation {
    /// It is mounted.
    mount,
    /// A dead volume gets a fresh helper.
    heal,
    /// A live volume gets a fresh helper.
    swap,
    /// It is shown at one more place.
    bind,
    /// It is taken away from a place, by request.
    unmount,
    /// A directory for one is made, or taken away.
    directory,
}

/// What bringing a filesystem up consists of, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
pub enum Step {
    /// The helper's account, mount namespace and files are made.
    prepare,
    /// It is confined and started.
    launch,
    /// It works, until it has mounted.
    helper,
    /// Its mount(2) is judged and performed.
    intercept,
    /// From there until its filesystem answers and it has said that it is ready.
    answer,
    /// The filesystem is attached on the node.
    graft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
enum Outcome {
    done,
    failed,
}

/// From half a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            operations: Family::default(),
            durations: Family::new_with_constructor(seconds),
            steps: Family::new_with_constructor(seconds),
            failures: Family::default(),
            hangs: Counter::default(),
            holds: seconds(),
            heirs: Counter::default(),
        }
    }
}

impl Metrics {
    /// Counts an operation that began at `began`. One that failed is counted by its reason, and its time is not.
    pub fn count<T, E: FailsFor>(&self, operation: Operation, began: Instant, result: &Result<T, E>) {
        let outcome = if result.is_ok() { Outcome::done } else { Outcome::failed };
        self.operations.get_or_create(&Counted { operation, result: outcome }).inc();
        match result {
            Ok(_) => self.durations.get_or_create(&Timed { operation }).observe(began.elapsed().as_secs_f64()),
            Err(error) => {
                let reason = error.reason();
                self.failures.get_or_create(&Failed { operation, reason }).inc();
            }
        }
    }

    /// A step took so long.
    pub fn step(&self, step: Step, took: Duration) {
        self.steps.get_or_create(&StepTaken { step }).observe(took.as_secs_f64());
    }
}

/// An error of an operation's.
pub trait FailsFor {
    /// What went wrong, in a word: so few that a label can have them.
    fn reason(&self) -> &'static str;
}

impl FailsFor for Failure {
    fn reason(&self) -> &'static str {
        match self.reason {
            Reason::Denied => "denied",
            Reason::Busy => "busy",
            Reason::Occupied => "occupied",
            Reason::InUse => "in-use",
            Reason::NotMounted => "not-mounted",
            Reason::NotServed => "not-served",
            Reason::Other => match self.exit {
                Exit::Usage => "usage",
                Exit::System => "system",
                Exit::Internal => "bug",
                Exit::Interrupted => "interrupted",
                Exit::MountFailure => "mount-failure",
            },
        }
    }
}
