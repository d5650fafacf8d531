//! From what came of a request to what its caller is told: the one place that maps errors to exit codes.

use super::raise::MountError;
use super::ready::NotReady;
use super::replace::{ReplaceError, Replaced};
use crate::helper::launch::LaunchError;
use api::exit::{Exit, chain};
use api::message::{Failure, MessageError, Mounted, Replaced as Answer, Reply};

/// The reply for a mount request.
pub fn to_mount(result: Result<Vec<String>, MountError>) -> Reply<Mounted> {
    result.map(|output| Mounted { output, already: false }).map_err(of_mount)
}

fn of_mount(error: MountError) -> Failure {
    let mut failure = Failure::new(exit_of(&error), chain(&error));
    if let MountError::Helper { objections, output, .. } = error {
        for objection in objections {
            failure.message.push_str("; ");
            failure.message.push_str(&objection);
        }
        failure.output = output;
    }
    failure
}

/// The reply for a heal or swap request.
pub fn to_replace(result: Result<Option<Replaced>, ReplaceError>) -> Reply<Answer> {
    match result {
        Ok(Some(Replaced::Shown { places, left })) => Ok(Answer { places, left }),
        Ok(Some(Replaced::Gone) | None) => Ok(Answer::default()),
        Err(ReplaceError::Mount(error)) => Err(of_mount(error)),
        Err(error @ (ReplaceError::NoVolume | ReplaceError::Unknown(_) | ReplaceError::Flags)) => {
            Err(failed(Exit::Usage, &error))
        }
        Err(error @ (ReplaceError::Look(_) | ReplaceError::Nowhere(_))) => Err(failed(Exit::System, &error)),
    }
}

fn failed(exit: Exit, error: &dyn std::error::Error) -> Failure {
    Failure::new(exit, chain(error))
}

/// The reply to something that is not a request.
pub fn to_nonsense(error: &MessageError) -> Reply<()> {
    Err(failed(Exit::Usage, error))
}

fn exit_of(error: &MountError) -> Exit {
    match error {
        MountError::Refused(_) | MountError::Secrets(_) | MountError::Lost(_) => Exit::Usage,
        MountError::Node(_) | MountError::Place(_) | MountError::IdMap(_) => Exit::System,
        MountError::Launch(LaunchError::Exec { .. }) => Exit::MountFailure,
        MountError::Launch(_) => Exit::System,
        MountError::Helper { reason: NotReady::CallerGone | NotReady::Stopping, .. } => Exit::Interrupted,
        MountError::Helper { reason: NotReady::Wait(_), .. } => Exit::System,
        MountError::NoHelper(_)
        | MountError::Target(_)
        | MountError::LogFile { .. }
        | MountError::AlreadyMounted { .. }
        | MountError::Busy(_)
        | MountError::NoIdMap(_)
        | MountError::Helper { .. }
        | MountError::Graft(_) => Exit::MountFailure,
    }
}
