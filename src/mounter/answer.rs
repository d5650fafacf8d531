//! From what came of a request to what its caller is told: the one place that maps errors to exit codes.

use super::raise::MountError;
use super::ready::NotReady;
use super::replace::{ReplaceError, Replaced};
use crate::exit::{Exit, chain};
use crate::helper::launch::LaunchError;
use crate::wire::{Reply, WireError};

/// The reply for a mount request.
pub fn to_mount(result: Result<Vec<String>, MountError>) -> Reply {
    match result {
        Ok(output) => Reply::Mounted { output },
        Err(error) => {
            let exit = exit_of(&error);
            let mut message = chain(&error);
            let mut output = Vec::new();
            if let MountError::Helper { objections, output: words, .. } = error {
                for objection in objections {
                    message.push_str("; ");
                    message.push_str(&objection);
                }
                output = words;
            }
            Reply::Failed { exit, message, output }
        }
    }
}

/// The reply for a heal or swap request.
pub fn to_replace(result: Result<Option<Replaced>, ReplaceError>) -> Reply {
    match result {
        Ok(Some(Replaced::Shown { places, left })) => Reply::Replaced { places, left },
        Ok(Some(Replaced::Gone) | None) => Reply::Replaced { places: 0, left: Vec::new() },
        Err(ReplaceError::Mount(error)) => to_mount(Err(error)),
        Err(error @ (ReplaceError::NoVolume | ReplaceError::Unknown(_) | ReplaceError::Flags)) => {
            failed(Exit::Usage, &error)
        }
        Err(error @ (ReplaceError::Look(_) | ReplaceError::Nowhere(_))) => failed(Exit::System, &error),
    }
}

fn failed(exit: Exit, error: &dyn std::error::Error) -> Reply {
    Reply::Failed { exit, message: chain(error), output: Vec::new() }
}

/// The reply to something that is not a request.
pub fn to_nonsense(error: &WireError) -> Reply {
    failed(Exit::Usage, error)
}

fn exit_of(error: &MountError) -> Exit {
    match error {
        MountError::Refused(_) | MountError::Secrets(_) | MountError::Lost(_) => Exit::Usage,
        MountError::Node(_) | MountError::Place(_) | MountError::IdMap(_) => Exit::System,
        MountError::Launch(LaunchError::Spawn { .. }) => Exit::MountFailure,
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
