//! A StorageClass: in which filesystem a volume has its directory, which one, and how it is made.
//!
//! Pure. Its author is an administrator; the names that fill its pattern are those of users.

use crate::volume_id::{OnDelete, VolumeId, is_below_root, is_name};
use api::directory::Work;
use std::collections::HashMap;

/// What Kubernetes adds (external-provisioner with `--extra-create-metadata`).
const KUBERNETES: &str = "csi.storage.k8s.io/";
const CLAIM: &str = "csi.storage.k8s.io/pvc/name";
const NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
/// What a pattern may hold.
const VOLUME: &str = "${pv.name}";
/// Parameters that become attributes of the volume, as they are.
const ATTRIBUTES: [&str; 6] = ["type", "source", "options", "mode", "fsGroup", "hostUsers"];

/// A volume as its class wants it.
#[derive(Debug, PartialEq, Eq)]
pub struct ToMake {
    /// Its id.
    pub id: VolumeId,
    /// Its attributes.
    pub context: HashMap<String, String>,
    /// How its directory is made.
    pub work: Work,
}

/// Why a class makes no volume.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadClass {
    /// A parameter.
    #[error("the StorageClass's parameter '{0}' is missing")]
    Missing(&'static str),
    /// Another parameter.
    #[error(
        "unknown parameter '{0}' of the StorageClass; known are type, source, options, mode, fsGroup, hostUsers, subDir, onDelete, directoryPerms, \
         uid and gid"
    )]
    Unknown(String),
    /// `onDelete`.
    #[error("the StorageClass's parameter 'onDelete' must be 'delete', 'retain' or 'archive'")]
    OnDelete,
    /// A number.
    #[error("the StorageClass's parameter '{0}' must be a number (directoryPerms: an octal one, like 0770)")]
    Number(&'static str),
    /// `subDir`.
    #[error(
        "the StorageClass's parameter 'subDir' must be a path without '..' of names and ${{pv.name}}, ${{pvc.name}}, ${{pvc.namespace}}"
    )]
    SubDir,
    /// The provisioner has not said it.
    #[error("'subDir' has {0}, which external-provisioner tells with --extra-create-metadata only")]
    NoMetadata(&'static str),
    /// A name that could be a path.
    #[error("{0} is no name of a directory")]
    Name(&'static str),
    /// Another claim could have the same directory, then or later.
    #[error(
        "with onDelete 'delete' or 'archive' the StorageClass's parameter 'subDir' must have ${{pv.name}} in it: another claim, or a later one \
         of the same name, would lose its files with this one; or use onDelete 'retain'"
    )]
    NotUnique,
}

impl ToMake {
    /// The volume called `name`, of a class with these parameters.
    pub fn new(name: &str, parameters: &HashMap<String, String>) -> Result<Self, BadClass> {
        let known = |key: &str| {
            ATTRIBUTES.contains(&key) || ["subDir", "onDelete", "directoryPerms", "uid", "gid"].contains(&key)
        };
        if let Some(key) = parameters.keys().find(|key| !known(key) && !key.starts_with(KUBERNETES)) {
            return Err(BadClass::Unknown(key.clone()));
        }
        let given = |key: &str| parameters.get(key).map(String::as_str);
        let needed = |key: &'static str| given(key).map(str::to_owned).ok_or(BadClass::Missing(key));
        let on_delete = given("onDelete").map_or(Some(OnDelete::Delete), OnDelete::of).ok_or(BadClass::OnDelete)?;
        let pattern = given("subDir").unwrap_or(VOLUME);
        if on_delete != OnDelete::Retain && !pattern.contains(VOLUME) {
            return Err(BadClass::NotUnique);
        }
        let directory = fill(pattern, name, given(CLAIM), given(NAMESPACE))?;
        let number = |key: &'static str, radix| {
            given(key).map(|number| u32::from_str_radix(number, radix).map_err(|_| BadClass::Number(key))).transpose()
        };
        let (mode, uid, gid) = (number("directoryPerms", 8)?, number("uid", 10)?, number("gid", 10)?);
        if mode.is_some_and(|mode| mode > 0o7777) {
            return Err(BadClass::Number("directoryPerms"));
        }
        let mut context: HashMap<_, _> =
            ATTRIBUTES.into_iter().filter_map(|key| Some((key.to_owned(), given(key)?.to_owned()))).collect();
        context.insert("subDir".to_owned(), directory.clone());
        let id = VolumeId {
            fstype: needed("type")?,
            source: needed("source")?,
            directory,
            on_delete,
            options: given("options").unwrap_or_default().to_owned(),
            // With the volume's name in the directory there is no other with it.
            name: if on_delete == OnDelete::Retain { name.to_owned() } else { String::new() },
        };
        Ok(Self { id, context, work: Work::Make { mode, uid, gid } })
    }
}

/// The directory of a pattern. A name stands for itself, whatever it is.
fn fill(pattern: &str, name: &str, claim: Option<&str>, namespace: Option<&str>) -> Result<String, BadClass> {
    let mut filled = String::new();
    let mut rest = pattern;
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, behind) = variable.split_once('}').ok_or(BadClass::SubDir)?;
        let (shown, value) = match variable {
            "pv.name" => (VOLUME, Some(name)),
            "pvc.name" => ("${pvc.name}", claim),
            "pvc.namespace" => ("${pvc.namespace}", namespace),
            _ => return Err(BadClass::SubDir),
        };
        let value = value.ok_or(BadClass::NoMetadata(shown))?;
        if !is_name(value) {
            return Err(BadClass::Name(shown));
        }
        filled.push_str(before);
        filled.push_str(value);
        rest = behind;
    }
    filled.push_str(rest);
    if is_below_root(&filled) { Ok(filled) } else { Err(BadClass::SubDir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(of: &[(&str, &str)]) -> Result<ToMake, BadClass> {
        let metadata = [(CLAIM, "data"), (NAMESPACE, "team"), ("csi.storage.k8s.io/pv/name", "pvc-1")];
        let usual = [("type", "s3fs"), ("source", "bucket")];
        let all = metadata.iter().chain(&usual).chain(of);
        ToMake::new("pvc-1", &all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn directory(pattern: &str) -> Result<String, BadClass> {
        class(&[("subDir", pattern), ("onDelete", "retain")]).map(|made| made.id.directory)
    }

    #[test]
    fn a_class_becomes_a_directory_and_attributes() {
        let made = class(&[("options", "url=x"), ("directoryPerms", "02770"), ("gid", "5"), ("mode", "pod")]).unwrap();
        assert_eq!(made.id.to_string(), "1#s3fs#bucket#pvc-1#delete#url=x#");
        assert_eq!(made.work, Work::Make { mode: Some(0o2770), uid: None, gid: Some(5) });
        let mut context: Vec<_> = made.context.iter().map(|(key, value)| format!("{key}={value}")).collect();
        context.sort();
        assert_eq!(context, ["mode=pod", "options=url=x", "source=bucket", "subDir=pvc-1", "type=s3fs"]);
        assert_eq!(class(&[]).unwrap().work, Work::Make { mode: None, uid: None, gid: None });
    }

    #[test]
    fn names_fill_a_pattern() {
        assert_eq!(directory("a/${pvc.namespace}/${pvc.name}-${pv.name}").unwrap(), "a/team/data-pvc-1");
        assert_eq!(directory("shared").unwrap(), "shared");
        assert_eq!(directory("a,suid"), Err(BadClass::SubDir), "it is one option's value");
        let retained = class(&[("subDir", "shared"), ("onDelete", "retain")]).unwrap();
        assert_eq!(retained.id.name, "pvc-1", "two volumes in one directory are two");
        for bad in ["", "/a", "a/", "..", "a/../b", "a//b", "${pvc.uid}", "${pv.name", "./${pv.name}", "a\nb"] {
            assert_eq!(directory(bad), Err(BadClass::SubDir), "{bad}");
        }
    }

    #[test]
    fn a_users_name_is_one_name() {
        let pattern = "x/${pvc.namespace}/${pvc.name}";
        for bad in ["..", ".", "", "a/b", "../../etc", "/", "a\0b", "a\nb", "a,b", "\"", "\\"] {
            assert_eq!(fill(pattern, "v", Some(bad), Some("n")), Err(BadClass::Name("${pvc.name}")), "{bad}");
            assert_eq!(fill(pattern, "v", Some("n"), Some(bad)), Err(BadClass::Name("${pvc.namespace}")), "{bad}");
            assert_eq!(fill("${pv.name}", bad, None, None), Err(BadClass::Name(VOLUME)), "{bad}");
        }
        assert_eq!(fill("${pvc.name}", "v", Some("${pv.name}"), None).unwrap(), "${pv.name}");
        assert_eq!(fill("a${pvc.name}", "v", Some("."), None), Err(BadClass::Name("${pvc.name}")));
        assert_eq!(fill(pattern, "v", None, Some("n")), Err(BadClass::NoMetadata("${pvc.name}")));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (parameter, error) in [
            (("server", "x"), BadClass::Unknown("server".into())),
            (("onDelete", "shred"), BadClass::OnDelete),
            (("directoryPerms", "0890"), BadClass::Number("directoryPerms")),
            (("directoryPerms", "10000"), BadClass::Number("directoryPerms")),
            (("uid", "root"), BadClass::Number("uid")),
            (("gid", "-1"), BadClass::Number("gid")),
            (("subDir", "${pvc.namespace}/${pvc.name}"), BadClass::NotUnique),
        ] {
            assert_eq!(class(&[parameter]), Err(error));
        }
        let archive = [("onDelete", "archive"), ("subDir", "${pvc.name}")];
        assert_eq!(class(&archive), Err(BadClass::NotUnique));
        assert_eq!(ToMake::new("v", &HashMap::new()), Err(BadClass::Missing("type")));
    }
}
