//! The mount options that fusermount3 takes, and `start`. Pure.

use api::options::MountOptions;
use std::fmt::Display;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What the mounter is asked for.
    pub for_mounter: MountOptions,
    /// The filesystem is to be unmounted when its program has ended.
    pub auto_unmount: bool,
}

/// A mount flag by both of its names, or by one. The last one of a pair counts.
struct Flag {
    on: &'static str,
    off: &'static [&'static str],
}

/// What a volume of a pod can have; it is always `nosuid,nodev`.
const FLAGS: &[Flag] = &[
    Flag { on: "ro", off: &["rw"] },
    Flag { on: "noexec", off: &["exec"] },
    Flag { on: "sync", off: &["async"] },
    Flag { on: "noatime", off: &["atime"] },
    Flag { on: "nodiratime", off: &["diratime"] },
    Flag { on: "nosymfollow", off: &["symfollow"] },
    Flag { on: "dirsync", off: &[] },
];

/// Those that change nothing: the kernel's own defaults, what holds anyway, and what is another's to say.
const WITHOUT_EFFECT: &[&str] = &["nosuid", "nodev", "norelatime", "relatime", "nostrictatime", "nonempty"];

/// Reads the argument of `-o`. `warn` is told about options that are not followed; an error is in words.
pub fn read(text: &str, mut warn: impl FnMut(&dyn Display)) -> Result<Options, String> {
    let mut options = Options::default();
    let mut on = [false; FLAGS.len()];
    let (mut fsname, mut subtype) = (None, None);
    for option in split(text) {
        if option.starts_with("x-") {
            // For programs that read a mount table.
        } else if let Some(value) = option.strip_prefix("fsname=") {
            fsname = Some(without_backslashes(value));
        } else if let Some(value) = option.strip_prefix("subtype=") {
            subtype = Some(without_backslashes(value));
        } else if option == "auto_unmount" {
            options.auto_unmount = true;
        } else if option == "blkdev" {
            return Err("option blkdev is privileged".to_owned());
        } else if matches!(option, "suid" | "dev") {
            warn(&format_args!("unsafe option {option} ignored"));
        } else if option == "large_read" {
            warn(&"note: 'large_read' mount option is deprecated");
        } else if let Some(nth) = FLAGS.iter().position(|flag| flag.on == option || flag.off.contains(&option)) {
            on[nth] = FLAGS[nth].on == option;
        } else if matches!(option, "default_permissions" | "allow_other") {
            if !options.for_mounter.has_flag(option) {
                options.for_mounter.push_flag(option);
            }
        } else if let Some((name @ ("max_read" | "blksize"), value)) = option.split_once('=') {
            options.for_mounter.push_value(name, plain(name, value)?);
        } else if !is_the_mounters(option) && !WITHOUT_EFFECT.contains(&option) {
            return Err(format!("unknown option '{}'", api::shown::shown(option)));
        }
    }
    for (flag, _) in FLAGS.iter().zip(on).filter(|(_, on)| *on) {
        options.for_mounter.push_flag(flag.on);
    }
    for (name, value) in [("fsname", fsname), ("subtype", subtype)] {
        // An empty one names nothing.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            options.for_mounter.push_value(name, plain(name, &value)?);
        }
    }
    Ok(options)
}

/// Options that say what only the one knows that mounts.
fn is_the_mounters(option: &str) -> bool {
    ["fd=", "rootmode=", "user_id=", "group_id="].iter().any(|name| option.starts_with(name))
}

/// Separates them at commas, but for those with a backslash before them in the two options where that is the custom.
fn split(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let escapes = text.starts_with("fsname=") || text.starts_with("subtype=");
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let comma = byte == b',' && !escaped;
            escaped = escapes && byte == b'\\' && !escaped;
            comma
        });
        let option = &text[..end.unwrap_or(text.len())];
        text = end.map_or("", |end| &text[end + 1..]);
        Some(option)
    })
}

/// Each backslash stands for the character after it.
fn without_backslashes(value: &str) -> String {
    let mut characters = value.chars();
    let mut plain = String::with_capacity(value.len());
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

/// A value as mount options have it: in quotes if it has a comma.
fn plain(name: &str, value: &str) -> Result<String, String> {
    if value.contains(['"', '\0']) {
        return Err(format!("the value of option {name} has a double quote, which no mount option can hold"));
    }
    Ok(if value.contains(',') { format!("\"{value}\"") } else { value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str) -> Result<String, String> {
        read(text, |_| {}).map(|options| options.for_mounter.to_string())
    }

    #[test]
    fn what_it_takes_is_asked_for() {
        assert_eq!(asked(""), Ok(String::new()));
        assert_eq!(
            asked("ro,rw,noexec,atime,noatime,nosuid,nodev,fd=3,user_id=0,x-gvfs-hide"),
            Ok("noexec,noatime".into())
        );
        assert_eq!(asked("allow_other,max_read=131072,allow_other"), Ok("allow_other,max_read=131072".into()));
        assert_eq!(asked("fsname=a,fsname=h:/b\\,c,subtype=x\\\\y"), Ok("fsname=\"h:/b,c\",subtype=x\\y".into()));
        assert!(read("auto_unmount,ro", |_| {}).unwrap().auto_unmount);
    }

    #[test]
    fn what_it_refuses() {
        for (text, words) in [
            ("uid=5", "unknown option 'uid=5'"),
            ("ro ", "unknown option 'ro '"),
            ("allow_root", "unknown option 'allow_root'"),
            ("context=\"a,b\"", "unknown option 'context=\"a'"),
            ("blkdev", "option blkdev is privileged"),
        ] {
            assert_eq!(asked(text).unwrap_err(), words);
        }
        assert!(asked("fsname=\"").unwrap_err().contains("double quote"));
    }

    proptest! {
        /// Whatever is asked for is what the mounter reads, and nothing else comes in by a value.
        #[test]
        fn what_is_asked_for_is_what_is_read(value in "[^\0\"]{1,24}") {
            let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
            let options = read(&format!("ro,fsname={escaped},subtype=s"), |_| {}).unwrap().for_mounter;
            let read = MountOptions::parse(&options.to_string()).unwrap();
            prop_assert_eq!(&read, &options);
            prop_assert_eq!(read.value("fsname").unwrap().trim_matches('"'), value);
            prop_assert_eq!(read.iter().count(), 3);
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            if let Ok(options) = read(&text, |_| {}) {
                prop_assert_eq!(MountOptions::parse(&options.for_mounter.to_string()).unwrap(), options.for_mounter);
            }
        }
    }
}
