//! From what came of a call to gRPC's codes: the one place that maps errors.
//!
//! Pure. Kubelet shows the text in the pod's events, so a helper's own words are in it.

use crate::mounter::AskError;
use crate::places::BadPath;
use crate::volume::BadVolume;
use api::client::CallError;
use api::exit::{Exit, chain};
use api::message::{Failure, Reason};
use tonic::{Code, Status};

impl From<BadPath> for Status {
    fn from(error: BadPath) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<BadVolume> for Status {
    fn from(error: BadVolume) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The status for a call that failed.
pub fn status(error: AskError) -> Status {
    match error {
        AskError::TimedOut(_) => Status::deadline_exceeded(chain(&error)),
        AskError::Call(CallError::Failed(failure)) => Status::new(code(&failure), failure.in_an_event("; ")),
        AskError::Call(error) => Status::unavailable(chain(&error)),
    }
}

fn code(failure: &Failure) -> Code {
    match failure.reason {
        Reason::Denied => Code::PermissionDenied,
        Reason::Busy => Code::Aborted,
        Reason::Occupied => Code::AlreadyExists,
        Reason::InUse | Reason::NotServed => Code::FailedPrecondition,
        Reason::NotMounted => Code::NotFound,
        Reason::Other => match failure.exit {
            Exit::Usage => Code::InvalidArgument,
            Exit::Interrupted => Code::Unavailable,
            Exit::System | Exit::Internal | Exit::MountFailure => Code::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn codes_are_the_specifications_and_words_the_helpers() {
        let failed = |failure| status(AskError::Call(CallError::Failed(failure)));
        let of = |exit, reason| failed(Failure::new(exit, "no").because(reason)).code();
        assert_eq!(of(Exit::Usage, Reason::Other), Code::InvalidArgument);
        assert_eq!(of(Exit::Usage, Reason::Denied), Code::PermissionDenied);
        assert_eq!(of(Exit::MountFailure, Reason::Busy), Code::Aborted);
        assert_eq!(of(Exit::MountFailure, Reason::Occupied), Code::AlreadyExists);
        assert_eq!(of(Exit::MountFailure, Reason::InUse), Code::FailedPrecondition);
        assert_eq!(of(Exit::MountFailure, Reason::NotServed), Code::FailedPrecondition);
        assert_eq!(of(Exit::MountFailure, Reason::NotMounted), Code::NotFound);
        assert_eq!(of(Exit::MountFailure, Reason::Other), Code::Internal);
        let mut failure = Failure::new(Exit::MountFailure, "s3fs could not mount");
        failure.output = vec!["s3fs: bucket\u{1b} does not exist".into(), "bye".into()];
        assert_eq!(failed(failure.clone()).message(), "s3fs could not mount: s3fs: bucket\\u{1b} does not exist; bye");
        failure.output = vec!["é".repeat(5000), "the end".into()];
        let words = failed(failure).message().to_owned();
        assert!(words.len() < 4200 && words.ends_with("the end"));
        assert_eq!(status(AskError::TimedOut(Duration::from_secs(3))).code(), Code::DeadlineExceeded);
        let away = CallError::NotRunning { socket: "/s".into(), source: std::io::ErrorKind::NotFound.into() };
        let away = status(AskError::Call(away));
        assert!(away.code() == Code::Unavailable && away.message().contains("the mounter is not running"));
    }
}
