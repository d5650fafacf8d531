//! What sources of servers look like, and what a value of an option is to whatever reads it: one word, and nothing more.
//!
//! Pure. Helpers are C programs, scripts and libraries, which all take texts apart in their own ways. A source that has its type's form
//! is neither an option, nor several, nor a program, nor a file of the container's, to any of them.

/// Whether a value is one word to whatever reads it: a shell script, the FUSE library, a helper. It names no file of the
/// container's either.
pub(super) fn is_word(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@%+=/-".contains(c);
    value.chars().all(plain) && !value.starts_with(['/', '-']) && !value.contains("..")
}

/// Whether a value is one value to whatever reads it, and nothing but text.
pub(super) fn is_text(value: &str) -> bool {
    !value.chars().any(|c| c.is_control() || c == ',' || c == '"')
}

/// Whether a value is a label of SELinux's, in quotes or not: `"system_u:object_r:container_file_t:s0:c1,c2"`. Taken apart at its commas,
/// it is a label and the names of categories, and no option of anybody's.
pub(super) fn is_label(value: &str) -> bool {
    let label = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let mut parts = label.split(',');
    let is_category = |part: &str| {
        let number = |part: &str| {
            part.strip_prefix('c')
                .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
        };
        part.split('.').count() <= 2 && part.split('.').all(number)
    };
    parts.next().is_some_and(|first| is_name(first, "_:.-")) && parts.all(is_category)
}

/// Letters, digits and these, and no sign at the beginning that could make it an option.
fn is_name(text: &str, and: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || and.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(plain)
}

/// A name or an address; one with colons in brackets.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => {
            address.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':')
                && address.chars().all(|c| c.is_ascii_alphanumeric() || ".:%".contains(c))
        }
        None => is_name(text, ".-_"),
    }
}

/// What FUSE programs and their scripts take for one path.
fn is_path(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || ",\"\\".contains(c))
}

/// A host and what is behind the colon after it.
fn host_and(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let (host, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':')?;
    is_host(host).then_some((host, rest))
}

/// A volume of GlusterFS, or a directory of one.
pub(super) fn is_gluster(source: &str) -> bool {
    let Some((last, volume)) = source.rsplit_once(',').map_or_else(
        || host_and(source),
        |(others, last)| others.split(',').all(is_host).then(|| host_and(last)).flatten(),
    ) else {
        return false;
    };
    let volume = volume.strip_prefix('/').unwrap_or(volume);
    !last.is_empty() && is_name(volume, "._-/") && !volume.contains("..")
}

/// An export of an NFS server.
pub(super) fn is_export(source: &str) -> bool {
    host_and(source).is_some_and(|(_, path)| path.starts_with('/') && is_text(path))
}

/// A share of a CIFS server.
pub(super) fn is_share(source: &str) -> bool {
    let Some((host, share)) = source.strip_prefix("//").and_then(|rest| rest.split_once('/')) else { return false };
    is_host(host) && !share.is_empty() && is_text(share)
}

/// A directory of a Ceph cluster, in the older or the newer form.
pub(super) fn is_ceph(source: &str) -> bool {
    let Some((before, path)) = source.rsplit_once(":/").or_else(|| source.strip_suffix(':').map(|hosts| (hosts, "")))
    else {
        // The newer form: USER@FSID.FS=/PATH.
        return source.split_once("=/").is_some_and(|(before, path)| is_name(before, "@.-_") && is_text(path));
    };
    let is_monitor = |text: &str| {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, port),
            _ => (text, "0"),
        };
        is_host(host) && port.parse::<u16>().is_ok()
    };
    is_text(path) && before.split(',').all(is_monitor)
}

/// A directory of an SSH server.
pub(super) fn is_ssh(source: &str) -> bool {
    let (user, rest) = match source.split_once(':').and_then(|(before, _)| before.split_once('@')) {
        Some((user, _)) => (user, &source[user.len() + 1..]),
        None => ("_", source),
    };
    is_name(user, "._-") && host_and(rest).is_some_and(|(_, path)| is_path(path))
}

/// A bucket, or a directory of one.
pub(super) fn is_bucket(source: &str) -> bool {
    let (bucket, path) = source.split_once(":/").unwrap_or((source, ""));
    is_name(bucket, ".-_") && is_path(path) && !path.contains(char::is_whitespace)
}

/// A remote that is configured by name: rclone would take options for it, or a local path, as well.
pub(super) fn is_remote(source: &str) -> bool {
    source.split_once(':').is_some_and(|(remote, path)| is_name(remote, "_-") && is_path(path))
}

/// A URL of a web server.
pub(super) fn is_url(source: &str) -> bool {
    let rest = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, port),
            _ => (host, "0"),
        };
        is_host(host) && port.parse::<u16>().is_ok() && is_path(path) && !path.contains(char::is_whitespace)
    })
}

/// A directory of a MooseFS master.
pub(super) fn is_moose(source: &str) -> bool {
    let (place, path) = source.split_once(":/").unwrap_or((source, ""));
    let (host, port) = place.split_once(':').unwrap_or((place, "0"));
    is_name(host, ".-_") && port.parse::<u16>().is_ok() && is_path(path) && !path.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::known_types::{KnownType, Source};

    fn is_source(fstype: &str, source: &str) -> bool {
        match KnownType::named(fstype).unwrap().source {
            Source::Elsewhere(_, is_source) => is_source(source),
            Source::Container => panic!("{fstype}"),
        }
    }

    #[test]
    fn sources_of_servers() {
        for (fstype, source) in [
            ("glusterfs", "10.0.0.1:vol"),
            ("glusterfs", "a.example.org,b:/vol/sub/dir"),
            ("glusterfs", "[fd00::1]:/vol"),
            ("nfs", "127.0.0.1:/export/a"),
            ("nfs", "[fd00::1]:/export/with space"),
            ("nfs4", "host:/"),
            ("cifs", "//account.file.core.windows.net/share"),
            ("cifs", "//10.0.0.1/with space/below"),
            ("ceph", "192.0.2.30:6789,192.0.2.31:6789:/"),
            ("ceph", "[fd00::1]:6789,b:/some/path"),
            ("ceph", "me@abc-def.fs=/path"),
            ("sshfs", "me@files.example.org:/srv/with space"),
            ("sshfs", "files:"),
            ("sshfs", "[fd00::1]:/x"),
            ("s3fs", "bucket"),
            ("s3fs", "my.bucket-1:/a/b"),
            ("rclone", "s3:bucket/x"),
            ("davfs", "https://dav.example.org:8080/x"),
            ("davfs", "http://10.77.0.1:8080"),
            ("moosefs", "10.77.0.1:/"),
            ("moosefs", "master:9421:/sub"),
        ] {
            assert!(is_source(fstype, source), "{fstype} {source}");
        }
    }

    #[test]
    fn sources_that_are_more_than_that() {
        for (fstype, source) in [
            ("glusterfs", "/etc/x.vol"),
            ("glusterfs", "h:v --dump-fuse=/x"),
            ("glusterfs", "-x:v"),
            ("glusterfs", "h:../x"),
            ("nfs", "/etc"),
            ("nfs", "host:rel"),
            ("nfs", "-o:/x"),
            ("cifs", "/etc"),
            ("cifs", "//h"),
            ("cifs", "//h/x,credentials=/etc/x"),
            ("ceph", "/etc"),
            ("ceph", "x:y:/"),
            ("sshfs", "[-oProxyCommand=touch x]:/x"),
            ("sshfs", "-oProxyCommand=x:/x"),
            ("sshfs", "a@-oProxyCommand=x:/x"),
            ("sshfs", "-a@b:/x"),
            ("sshfs", "/etc"),
            ("sshfs", "h:/x,ssh_command=y"),
            ("sshfs", "h:/x\\,y"),
            ("s3fs", "/etc"),
            ("s3fs", "b,credlib=x"),
            ("s3fs", "b:/x y"),
            ("rclone", "/etc"),
            ("rclone", ":local:/etc"),
            ("rclone", ":sftp,ssh=x:/"),
            ("rclone", "s3,endpoint=x:/"),
            ("rclone", "etc"),
            ("davfs", "file:///etc"),
            ("davfs", "http://-x/"),
            ("moosefs", "/etc"),
            ("moosefs", "-H:/"),
        ] {
            assert!(!is_source(fstype, source), "{fstype} {source}");
        }
    }

    #[test]
    fn values_are_words() {
        for value in ["", "5", "0777", "https://s3.example.org:80/x", "4.1", "a:b", "me@x", "aes128-ctr+x"] {
            assert!(is_word(value), "{value}");
        }
        for value in
            ["/etc/x", "a b", "a,b", "\"a\"", "a\\,b", "$(x)", "`x`", "-x", "a/../b", "~/x", "a;b", "a*", "a\n"]
        {
            assert!(!is_word(value), "{value}");
        }
        for label in ["system_u:object_r:container_file_t:s0", "\"u:r:t:s0:c1,c2\"", "u:r:t:s0:c0.c1023,c5"] {
            assert!(is_label(label), "{label}");
        }
        for label in
            ["", "\"", "\"a,credentials=/x\"", "a,b", "a,c", "a,c1=2", "a b", "-a", "/etc/x", "a,c1,ssh_command=x"]
        {
            assert!(!is_label(label), "{label}");
        }
        assert!(is_text("p$w`d \\x") && !is_text("a,b") && !is_text("\"") && !is_text("a\nb"));
    }
}
