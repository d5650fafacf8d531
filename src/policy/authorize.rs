//! Whether a caller may have what it asks for.
//!
//! Runs in the mounter; pure. Decided when a request arrives, and only then: a mounted volume was authorized, so
//! neither healing nor recovery decides again. A stricter rule holds for later requests.

use super::grant::contradiction;
use super::plan::Plan;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The mounter's socket, to which only root of the node can connect: kubelet and operators. It is the only origin
    /// today.
    RootSocket,
}

/// Why a caller may not have what it asks for, although it could be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An option that contradicts the grant every volume gets.
    #[error("option '{0}' cannot be granted: volumes are always mounted nosuid,nodev")]
    NeverGranted(String),
}

/// Whether a caller from `origin` may have what is planned.
pub fn authorize(origin: Origin, plan: &Plan) -> Result<(), Denied> {
    match origin {
        // Root of the node may have whatever any caller may have.
        Origin::RootSocket => {}
    }
    match contradiction(&plan.request.options) {
        Some(option) => Err(Denied::NeverGranted(option.name.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::policy::plan::tests::request;

    #[test]
    fn suid_and_dev_are_never_granted() {
        let asked = |options| {
            let plan = Plan::new(&Config::default(), request("x", "/a", options)).unwrap();
            authorize(Origin::RootSocket, &plan)
        };
        assert_eq!(asked("ro,noexec"), Ok(()));
        assert_eq!(asked("suid"), Err(Denied::NeverGranted("suid".into())));
        assert_eq!(asked("dev,nodev"), Err(Denied::NeverGranted("dev".into())));
    }
}
