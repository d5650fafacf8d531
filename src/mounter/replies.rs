//! From what came of an operation to what its caller gets: the one place that maps errors to exit codes.
//!
//! Pure.

use super::operation::bring_up::BringUpError;
use super::operation::mount::MountError;
use super::operation::ready::NotReady;
use super::operation::replace::{ReplaceError, Replaced};
use super::operation::unmount::UnmountError;
use crate::helper::launch::LaunchError;
use api::exit::{Exit, chain};
use api::message::{self, Failure, Reply};

/// The failure of a mount request.
pub(super) fn to_mount(error: MountError) -> Failure {
    let exit = match error {
        MountError::BringUp(error) => return to_bring_up(error),
        MountError::Plan(_) | MountError::Denied(_) => Exit::Usage,
        MountError::Node(_) => Exit::System,
        MountError::Target(_)
        | MountError::AlreadyMounted { .. }
        | MountError::Occupied { .. }
        | MountError::Busy(_)
        | MountError::NoIdMap(_)
        | MountError::Graft(_) => Exit::MountFailure,
    };
    Failure::new(exit, chain(&error))
}

/// The failure of an unmount request.
pub(super) fn to_unmount(error: UnmountError) -> Failure {
    let exit = match error {
        UnmountError::Target(_) | UnmountError::Foreign { .. } => Exit::Usage,
        UnmountError::Node(_) | UnmountError::Table(_) => Exit::System,
        UnmountError::Busy(_) | UnmountError::Place(_) | UnmountError::Unmount { .. } | UnmountError::Remove { .. } => {
            Exit::MountFailure
        }
    };
    Failure::new(exit, chain(&error))
}

/// The reply to a heal or swap request. `None`: nothing was to be done.
pub(super) fn to_replace(result: Result<Option<Replaced>, ReplaceError>) -> Reply<message::Replaced> {
    match result {
        Ok(Some(Replaced::Shown { places, left })) => Ok(message::Replaced { places, left }),
        Ok(Some(Replaced::Gone) | None) => Ok(message::Replaced::default()),
        Err(ReplaceError::BringUp(error)) => Err(to_bring_up(error)),
        Err(error) => {
            let exit = match error {
                ReplaceError::NoVolume
                | ReplaceError::NotKnown(_)
                | ReplaceError::Change(_)
                | ReplaceError::Denied(_) => Exit::Usage,
                ReplaceError::Busy(_) | ReplaceError::BringUp(_) => Exit::MountFailure,
                ReplaceError::Search(_) | ReplaceError::Nowhere(_) => Exit::System,
            };
            Err(Failure::new(exit, chain(&error)))
        }
    }
}

fn to_bring_up(error: BringUpError) -> Failure {
    let exit = match &error {
        BringUpError::Secrets(_) | BringUpError::Option(_) => Exit::Usage,
        BringUpError::Node(_) | BringUpError::Namespace(_) | BringUpError::IdMap(_) | BringUpError::NoUid(_) => {
            Exit::System
        }
        BringUpError::Launch(LaunchError::Exec { .. }) => Exit::MountFailure,
        BringUpError::Launch(_) => Exit::System,
        BringUpError::Helper { reason: NotReady::CallerGone | NotReady::Stopping, .. } => Exit::Interrupted,
        BringUpError::Helper { reason: NotReady::Wait(_), .. } => Exit::System,
        BringUpError::NoHelper(_) | BringUpError::LogFile { .. } | BringUpError::Helper { .. } => Exit::MountFailure,
    };
    let mut failure = Failure::new(exit, chain(&error));
    if let BringUpError::Helper { objections, output, .. } = error {
        for objection in objections {
            failure.message.push_str("; ");
            failure.message.push_str(&objection);
        }
        failure.output = output;
    }
    failure
}
