//! Volume ids: what CreateVolume gives, and DeleteVolume gets back, with nothing else to go by.
//!
//! Pure. An id says by itself what volume it is: the filesystem, the directory in it, and what becomes of that when the volume is
//! deleted. It comes back from the API server, where somebody else may have written it: so each volume has one id and no other
//! text is one, a directory cannot lead out of its filesystem, and whoever forges one has no more than whoever writes a
//! PersistentVolume for the same filesystem: the mounter's policy judges both.

use std::fmt::{self, Write};

/// What an id of this form begins with.
const VERSION: &str = "1";
/// Between two fields.
const SEPARATOR: char = '#';

/// A volume that CreateVolume has made a directory for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeId {
    /// The type of its filesystem.
    pub fstype: String,
    /// What of it is mounted.
    pub source: String,
    /// The directory in it.
    pub directory: String,
    /// What becomes of the directory.
    pub on_delete: OnDelete,
    /// The options with which it is mounted.
    pub options: String,
    /// What tells it from other volumes in the same directory, where there may be some.
    pub name: String,
}

/// What becomes of a volume's directory when the volume is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// It is removed, with everything in it.
    Delete,
    /// It stays as it is.
    Retain,
    /// It stays under another name, beside where it was.
    Archive,
}

impl OnDelete {
    const ALL: [Self; 3] = [Self::Delete, Self::Retain, Self::Archive];

    /// That of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Retain => "retain",
            Self::Archive => "archive",
        }
    }
}

impl VolumeId {
    /// Reads an id. `None`: no volume has it.
    pub fn read(id: &str) -> Option<Self> {
        let fields: Vec<_> = id.split(SEPARATOR).map(decoded).collect::<Option<_>>()?;
        let [version, fstype, source, directory, on_delete, options, name] = fields.try_into().ok()?;
        let read = Self { fstype, source, directory, on_delete: OnDelete::of(&on_delete)?, options, name };
        let is_one = version == VERSION && is_below_root(&read.directory) && read.to_string() == id;
        is_one.then_some(read)
    }

    /// The name that the directory has as an archive.
    pub fn archive(&self) -> String {
        format!("archived-{}", self.directory.rsplit('/').next().unwrap_or_default())
    }
}

/// Whether a path names a directory below the root that it is looked up from: no `..`, nothing that could be left out.
pub fn is_below_root(path: &str) -> bool {
    path.split('/').all(is_name)
}

/// Whether a text is one name in a directory, which a person can read, and one word among options.
pub fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || matches!(c, '/' | ',' | '"' | '\\');
    !matches!(name, "" | "." | "..") && name.len() < 256 && !name.contains(bad)
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VERSION)?;
        let on_delete = self.on_delete.word();
        for field in [&*self.fstype, &self.source, &self.directory, on_delete, &self.options, &self.name] {
            f.write_char(SEPARATOR)?;
            encode(field, f)?;
        }
        Ok(())
    }
}

/// As in a URL.
fn encode(field: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in field.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => f.write_char(byte.into())?,
            b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'=' | b',' | b'+' | b'@' => f.write_char(byte.into())?,
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

fn decoded(field: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = field.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> VolumeId {
        VolumeId {
            fstype: "s3fs".into(),
            source: "bucket:/a#b".into(),
            directory: "team a/pvc-1".into(),
            on_delete: OnDelete::Archive,
            options: "url=https://x,ro".into(),
            name: String::new(),
        }
    }

    #[test]
    fn an_id_comes_back() {
        let text = id().to_string();
        assert_eq!(text, "1#s3fs#bucket:/a%23b#team%20a/pvc-1#archive#url=https://x,ro#");
        assert_eq!(VolumeId::read(&text), Some(id()));
        assert_eq!(id().archive(), "archived-pvc-1");
        for on_delete in OnDelete::ALL {
            let other = VolumeId { on_delete, name: "é\n".into(), ..id() };
            assert_eq!(VolumeId::read(&other.to_string()), Some(other));
        }
    }

    proptest! {
        #[test]
        fn any_volume_has_one_id(fields in proptest::array::uniform5(".{0,20}"), directory in "[^/]{1,9}(/[^/]{1,9}){0,3}") {
            let [fstype, source, options, name, _] = fields;
            let id = VolumeId { fstype, source, directory, on_delete: OnDelete::Retain, options, name };
            let expected = is_below_root(&id.directory).then(|| id.clone());
            prop_assert_eq!(VolumeId::read(&id.to_string()), expected);
        }

        /// Whatever the API server has been told.
        #[test]
        fn no_text_leads_out(text in "(1#[a-z%0-9]{0,4}#){0,1}[a-z./%#0-9A-F,]{0,40}(#delete##)?") {
            if let Some(id) = VolumeId::read(&text) {
                prop_assert!(id.directory.split('/').all(|name| !["", ".", ".."].contains(&name)));
                prop_assert!(!id.directory.contains(['\0', ',', '"', '\\']));
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn nothing_else_is_one() {
        let text = id().to_string();
        let with = |from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            changed
        };
        for other in [
            String::new(),
            "pvc-1".into(),
            with("1#s3fs", "2#s3fs"),
            with("archive", "shred"),
            with("pvc-1", "../x"),
            with("pvc-1", ".."),
            with("pvc-1", "%2E%2E"),
            with("team%20a", ""),
            with("team%20a/", "team%20a//"),
            with("team%20a/pvc-1", ""),
            with("team%20a", "%00"),
            with("team%20a", "a,suid"),
            with("team%20a", "a%0Ab"),
            // Two texts for one volume.
            with("%23", "%2d"),
            with("s3fs", "%733fs"),
            with("%20", " "),
            with("%23", "%2"),
            with("%23", "%ff"),
            with("%23", "#"),
            format!("{text}#"),
            text[..text.len() - 1].into(),
        ] {
            assert_eq!(VolumeId::read(&other), None, "{other}");
        }
    }
}
