//! A Landlock domain around each helper: it cannot trace or signal what is outside, nor call it on abstract sockets. Being uid 0
//! it could otherwise, whatever has no capability: the mounter's other helpers, and pods.
//!
//! Put on the thread that is about to start a helper, and inherited. Where the kernel has less of it there is less of it: a second
//! wall, which nothing relies on.

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope,
};
use std::fmt;

/// What a domain holds off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Tracing, signals, abstract sockets (ABI 6, Linux 6.12).
    Whole,
    /// Tracing, and what the kernel judges in the same way: reading memory, environment and descriptors (ABI 2, Linux 5.19).
    Tracing,
    /// Nothing. With ABI 1 no file could be renamed to another directory.
    Nothing,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "helpers can neither trace nor signal others, nor reach their abstract sockets",
            Self::Tracing => "helpers cannot trace others; against signals it needs Linux 6.12",
            Self::Nothing => "not on this kernel: it needs Linux 5.19 with landlock among its security modules (lsm=)",
        })
    }
}

/// Closes the calling thread, which has `no_new_privs` or CAP_SYS_ADMIN, and what it will start, into a domain of its own.
pub fn enter_domain() -> Domain {
    if scoped().is_ok() {
        Domain::Whole
    } else if untraced().is_ok() {
        Domain::Tracing
    } else {
        Domain::Nothing
    }
}

fn scoped() -> Result<(), RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let scopes: BitFlags<Scope> = Scope::Signal | Scope::AbstractUnixSocket;
    rules.scope(scopes)?.create()?.no_new_privs(false).restrict_self().map(drop)
}

/// A domain must rule over something: over renaming to other directories, which is allowed everywhere.
fn untraced() -> Result<(), Box<dyn std::error::Error>> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let created = rules.handle_access(AccessFs::Refer)?.create()?;
    let everywhere = PathBeneath::new(PathFd::new("/")?, AccessFs::Refer);
    created.add_rule(everywhere)?.no_new_privs(false).restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread};

    #[test]
    fn a_domain_without_scopes_lets_files_be_renamed() {
        let tried = thread::spawn(|| {
            let here = std::env::temp_dir().join(format!("hostmount-domain-{}", std::process::id()));
            fs::create_dir_all(here.join("to")).unwrap();
            fs::write(here.join("file"), "").unwrap();
            // Where the kernel has it.
            let entered = untraced();
            let renamed = fs::rename(here.join("file"), here.join("to/file"));
            fs::remove_dir_all(here).unwrap();
            (entered.is_ok(), renamed)
        });
        let (_, renamed) = tried.join().unwrap();
        renamed.unwrap();
    }
}
