//! From kubelet's words to a request for the mounter, for a volume that a program of its pod serves (`mode: program`).
//!
//! Pure. Its attributes are the names of an emptyDir and of a socket there: what else a volume is the program knows.

use crate::csi::VolumeCapability;
use crate::csi::volume_capability::AccessType;
use crate::volume::{BadVolume, access, host_users, is_of_kubernetes};
use api::program::{DEFAULT_NAME, ProgramVolume};
use std::collections::HashMap;

/// A volume that a program of its pod serves.
#[derive(Debug, PartialEq, Eq)]
pub struct OfProgram {
    empty_dir: String,
    name: String,
    read_only: bool,
    host_users: bool,
}

impl OfProgram {
    /// What a capability and the volume's attributes ask for, if `mode` says so.
    pub fn new(
        capability: Option<&VolumeCapability>,
        context: &HashMap<String, String>,
    ) -> Result<Option<Self>, BadVolume> {
        if context.get("mode").is_none_or(|mode| mode != "program") {
            return Ok(None);
        }
        let capability = capability.ok_or(BadVolume::NoCapability)?;
        // Its type, flags and group say what a helper is to do.
        if !matches!(capability.access_type, Some(AccessType::Mount(_))) {
            return Err(BadVolume::Block);
        }
        let (read_only, _) = access(capability)?;
        let (mut empty_dir, mut name, mut users_of_host) = (None, DEFAULT_NAME.to_owned(), true);
        for (key, value) in context {
            match key.as_str() {
                "mode" => {}
                "emptyDir" => empty_dir = Some(value.clone()),
                "name" => name.clone_from(value),
                "hostUsers" => users_of_host = host_users(value)?,
                key if is_of_kubernetes(key) => {}
                key => return Err(BadVolume::Programs(key.to_owned())),
            }
        }
        let empty_dir = empty_dir.ok_or(BadVolume::EmptyDir)?;
        Ok(Some(Self { empty_dir, name, read_only, host_users: users_of_host }))
    }

    /// The request for it at a target.
    pub fn request(self, target: String, read_only: bool) -> ProgramVolume {
        let Self { empty_dir, name, read_only: always, host_users } = self;
        ProgramVolume { target, empty_dir, name, read_only: read_only || always, host_users }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::volume_capability::access_mode::Mode;
    use crate::csi::volume_capability::{AccessMode, MountVolume};
    use crate::volume::EPHEMERAL;

    fn capability(mode: Mode) -> VolumeCapability {
        let access_mode = Some(AccessMode { mode: mode.into() });
        VolumeCapability { access_mode, access_type: Some(AccessType::Mount(MountVolume::default())) }
    }

    fn context(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_program_of_the_pods_has_an_empty_dir_and_nothing_that_a_helper_has() {
        let of = |mode, of: &[(&str, &str)]| OfProgram::new(Some(&capability(mode)), &context(of));
        let many = Mode::SingleNodeMultiWriter;
        assert_eq!(of(many, &[("type", "x")]), Ok(None));
        let program =
            [("mode", "program"), ("emptyDir", "fuse"), (EPHEMERAL, "true"), ("csi.storage.k8s.io/pod.name", "p")];
        let volume = of(many, &program).unwrap().unwrap().request("/t".into(), true);
        assert_eq!((&*volume.empty_dir, &*volume.name, volume.read_only), ("fuse", "volume", true));
        let all: Vec<_> = program.into_iter().chain([("name", "data")]).collect();
        let volume = of(Mode::SingleNodeReaderOnly, &all).unwrap().unwrap().request("/t".into(), false);
        assert_eq!((&*volume.name, volume.read_only), ("data", true));
        assert!(volume.host_users);
        let with_users = |of_host| [program[0], program[1], ("hostUsers", of_host)];
        assert!(!of(many, &with_users("false")).unwrap().unwrap().request("/t".into(), false).host_users);
        assert_eq!(of(many, &with_users("no")), Err(BadVolume::HostUsers));
        assert_eq!(of(many, &program[..1]), Err(BadVolume::EmptyDir));
        for key in ["type", "source", "options", "subDir"] {
            assert_eq!(of(many, &[program[0], program[1], (key, "x")]), Err(BadVolume::Programs(key.into())));
        }
        assert_eq!(of(Mode::Unknown, &program), Err(BadVolume::AccessMode));
        assert_eq!(OfProgram::new(None, &context(&program)), Err(BadVolume::NoCapability));
    }
}
