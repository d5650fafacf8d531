//! From what came of an operation to what its caller gets: the one place that maps errors to exit codes.
//!
//! Pure.

use super::operation::bind::BindError;
use super::operation::bring_up::BringUpError;
use super::operation::directory::DirectoryError;
use super::operation::mount::MountError;
use super::operation::place::PlaceError;
use super::operation::ready::NotReady;
use super::operation::replace::{ReplaceError, Replaced};
use super::operation::stats::StatsError;
use super::operation::unmount::UnmountError;
use super::pods::publish::PublishError;
use crate::helper::launch::LaunchError;
use api::exit::{Exit, chain};
use api::message::{self, Failure, Reason, Reply};

/// The failure of a mount request.
pub(super) fn to_mount(error: MountError) -> Failure {
    let exit = match error {
        MountError::BringUp(error) => return to_bring_up(error),
        MountError::Plan(_) | MountError::Denied(_) => Exit::Usage,
        MountError::Node(_) => Exit::System,
        MountError::Place(error) => return to_place(&error),
        MountError::AlreadyMounted { .. }
        | MountError::Occupied { .. }
        | MountError::Busy(_)
        | MountError::NoIdMap(_)
        | MountError::Subdir(_)
        | MountError::Placeholder(_)
        | MountError::Graft(_) => Exit::MountFailure,
    };
    let reason = match error {
        MountError::Denied(_) => Reason::Denied,
        MountError::Busy(_) => Reason::Busy,
        MountError::Occupied { .. } | MountError::AlreadyMounted { .. } => Reason::Occupied,
        _ => Reason::Other,
    };
    Failure::new(exit, chain(&error)).because(reason)
}

/// The failure of work on a directory.
pub(super) fn to_directory(error: DirectoryError) -> Failure {
    let exit = match error {
        DirectoryError::Filesystem(error) => return to_mount(error),
        DirectoryError::Path(_) => Exit::Usage,
        DirectoryError::TimedOut { .. } => Exit::Interrupted,
        DirectoryError::Work { .. } => Exit::MountFailure,
    };
    Failure::new(exit, chain(&error))
}

/// The failure of a request to show a volume at one more place.
pub(super) fn to_bind(error: BindError) -> Failure {
    let (exit, reason) = match error {
        BindError::Place(error) => return to_place(&error),
        BindError::Path(_) => (Exit::Usage, Reason::Other),
        BindError::Busy(_) | BindError::Replaced(_) => (Exit::MountFailure, Reason::Busy),
        BindError::NotMounted(_) => (Exit::MountFailure, Reason::NotMounted),
        BindError::Foreign(_) => (Exit::Usage, Reason::Denied),
        BindError::Occupied(_) | BindError::Otherwise(..) => (Exit::MountFailure, Reason::Occupied),
        BindError::InUse(_) => (Exit::MountFailure, Reason::InUse),
        BindError::Table(_) => (Exit::System, Reason::Other),
        BindError::Graft(_) | BindError::Placeholder(_) => (Exit::MountFailure, Reason::Other),
    };
    Failure::new(exit, chain(&error)).because(reason)
}

/// The failure of a request to take a volume away from a place.
pub(super) fn to_unmount(error: UnmountError) -> Failure {
    let (exit, reason) = match error {
        UnmountError::Place(error) => return to_place(&error),
        UnmountError::Path(_) => (Exit::Usage, Reason::Other),
        UnmountError::Busy(_) => (Exit::MountFailure, Reason::Busy),
        UnmountError::Foreign(_) => (Exit::Usage, Reason::Denied),
        UnmountError::Table(_) => (Exit::System, Reason::Other),
        UnmountError::Unmount(..) | UnmountError::Remove(..) => (Exit::MountFailure, Reason::Other),
    };
    Failure::new(exit, chain(&error)).because(reason)
}

/// The failure of a request for a volume that a program of a pod serves.
pub(super) fn to_publish(error: PublishError) -> Failure {
    let (exit, reason) = match error {
        PublishError::Place(error) => return to_place(&error),
        PublishError::NotServed(complaint) => {
            let output = complaint.words;
            let failure = Failure::new(Exit::MountFailure, complaint.message).because(Reason::NotServed);
            return Failure { output, ..failure };
        }
        PublishError::Path(_) | PublishError::NoPod(_) | PublishError::Name(_) => (Exit::Usage, Reason::Other),
        PublishError::Denied(_) => (Exit::Usage, Reason::Denied),
        PublishError::Busy(_) => (Exit::MountFailure, Reason::Busy),
        PublishError::Occupied(_) => (Exit::MountFailure, Reason::Occupied),
        PublishError::Node(_) => (Exit::System, Reason::Other),
        PublishError::Door(_) | PublishError::Fresh(_) | PublishError::Placeholder(_) | PublishError::Graft(_) => {
            (Exit::MountFailure, Reason::Other)
        }
    };
    Failure::new(exit, chain(&error)).because(reason)
}

/// The failure of a question how a volume is.
pub(super) fn to_stats(error: StatsError) -> Failure {
    let (exit, reason) = match error {
        StatsError::Place(error) => return to_place(&error),
        StatsError::Path(_) => (Exit::Usage, Reason::Other),
        StatsError::NotMounted(_) => (Exit::Usage, Reason::NotMounted),
    };
    Failure::new(exit, chain(&error)).because(reason)
}

fn to_place(error: &PlaceError) -> Failure {
    let (exit, reason) = match error {
        PlaceError::Denied(_) => (Exit::Usage, Reason::Denied),
        PlaceError::Node(_) => (Exit::System, Reason::Other),
        PlaceError::Target(_) => (Exit::MountFailure, Reason::Other),
    };
    Failure::new(exit, chain(error)).because(reason)
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
                ReplaceError::Search(_) | ReplaceError::Nowhere(_) | ReplaceError::Placeholder => Exit::System,
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
        BringUpError::Helper { reason: NotReady::Unwanted | NotReady::Stopping, .. } => Exit::Interrupted,
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
