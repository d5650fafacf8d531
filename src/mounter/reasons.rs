//! The words by which failures are counted (docs/metrics.md).
//!
//! Pure.

use super::operation::bring_up::BringUpError;
use super::operation::mount::MountError;
use super::operation::place::PlaceError;
use super::operation::ready::NotReady;
use super::operation::replace::ReplaceError;
use crate::observe::metrics::FailsFor;

impl FailsFor for MountError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Plan(_) => "usage",
            Self::Denied(_) | Self::Place(PlaceError::Denied(_)) => "denied",
            Self::Busy(_) => "busy",
            Self::Place(PlaceError::Target(_)) => "target",
            Self::AlreadyMounted { .. } | Self::Occupied { .. } => "occupied",
            Self::BringUp(error) => error.reason(),
            Self::NoIdMap(_) | Self::Subdir(_) => "filesystem",
            Self::Node(_) | Self::Place(PlaceError::Node(_)) | Self::Placeholder(_) | Self::Graft(_) => "system",
        }
    }
}

impl FailsFor for ReplaceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoVolume => "not-mounted",
            Self::NotKnown(_) => "not-known",
            Self::Change(_) => "usage",
            Self::Denied(_) => "denied",
            Self::Busy(_) => "busy",
            Self::BringUp(error) => error.reason(),
            Self::Search(_) | Self::Nowhere(_) | Self::Placeholder => "system",
        }
    }
}

impl FailsFor for BringUpError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Secrets(_) | Self::Option(_) | Self::LogFile { .. } => "usage",
            Self::NoHelper(_) => "no-helper",
            Self::Helper { reason, .. } => match reason {
                NotReady::Failed { .. } | NotReady::Ended | NotReady::Withdrawn => "helper-failed",
                NotReady::Died(_) => "helper-died",
                NotReady::TimedOut { .. } => "timeout",
                NotReady::Unwanted => "unwanted",
                NotReady::Stopping => "stopping",
                NotReady::Wait(_) => "system",
            },
            Self::NoUid(_) | Self::Node(_) | Self::Namespace(_) | Self::IdMap(_) | Self::Launch(_) => "system",
        }
    }
}
