//! fusermount3's command line, read as getopt_long(3) reads it, with its words. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// To say how it is called.
    Help,
    /// To say which version it is.
    Version,
    /// To say what it can do beyond mounting and unmounting.
    Features {
        /// And not as a number.
        in_words: bool,
    },
    /// Anything else.
    Work(Arguments),
}

/// What is to be done, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What is to be done.
    pub work: Work,
    /// The last `-o`: each takes the place of the one before.
    pub options: String,
    /// The number of the descriptor of the caller's socket.
    pub comm_fd: Option<OsString>,
    /// As it was given.
    pub mount_point: OsString,
}

/// What there is to do with a mount point.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// To mount.
    Mount {
        /// The caller answers INIT before the mount is made.
        sync_init: bool,
    },
    /// To unmount.
    Unmount {
        /// Also if it is in use.
        lazy: bool,
        /// Without a word.
        quiet: bool,
    },
    /// Wait for the caller's end, and unmount what it has mounted by itself.
    AutoUnmount,
}

/// Whether an option has an argument.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Argument,
    Maybe,
}

const LONG: &[(&str, char, Takes)] = &[
    ("unmount", 'u', Takes::Nothing),
    ("lazy", 'z', Takes::Nothing),
    ("quiet", 'q', Takes::Nothing),
    ("help", 'h', Takes::Nothing),
    ("version", 'V', Takes::Nothing),
    ("features", 'F', Takes::Maybe),
    ("options", 'o', Takes::Argument),
    ("auto-unmount", 'U', Takes::Nothing),
    ("comm-fd", 'c', Takes::Argument),
    ("sync-init", 'S', Takes::Nothing),
];

/// An option, and its argument if it has one.
type Found = (char, Option<OsString>);

/// Reads the arguments that follow the program's name. An error is in words.
pub fn parse(arguments: &[OsString]) -> Result<Parsed, String> {
    let (mut unmount, mut lazy, mut quiet, mut auto_unmount, mut sync_init) = (false, false, false, false, false);
    let (mut options, mut comm_fd) = (OsString::new(), None);
    let mut places = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let found = match word.as_bytes() {
            b"--" => {
                places.extend(rest.by_ref().cloned());
                break;
            }
            [b'-', b'-', name @ ..] => vec![long(name, &mut rest)?],
            [b'-', letters @ ..] if !letters.is_empty() => short(letters, &mut rest)?,
            _ => {
                places.push(word.clone());
                continue;
            }
        };
        for (option, argument) in found {
            match option {
                'h' => return Ok(Parsed::Help),
                'V' => return Ok(Parsed::Version),
                'F' => {
                    return Ok(match argument {
                        None => Parsed::Features { in_words: false },
                        Some(word) if word == "text" => Parsed::Features { in_words: true },
                        Some(_) => Parsed::Help,
                    });
                }
                'o' => options = argument.unwrap_or_default(),
                'u' => unmount = true,
                'U' => auto_unmount = true,
                'c' => comm_fd = argument,
                'S' => sync_init = true,
                'z' => lazy = true,
                _ => quiet = true,
            }
        }
    }
    if lazy && !unmount && !auto_unmount {
        return Err("-z can only be used with -u".to_owned());
    }
    let mut places = places.into_iter();
    let mount_point = places.next().ok_or("missing mountpoint argument")?;
    if places.next().is_some() {
        return Err("extra arguments after the mountpoint".to_owned());
    }
    let work = match (auto_unmount, unmount) {
        (true, _) => Work::AutoUnmount,
        (false, true) => Work::Unmount { lazy, quiet },
        (false, false) => Work::Mount { sync_init },
    };
    let not_text = |options: OsString| format!("unknown option '{}'", options.display());
    Ok(Parsed::Work(Arguments { work, options: options.into_string().map_err(not_text)?, comm_fd, mount_point }))
}

/// One word of letters, the last of which may have an argument.
fn short<'a>(letters: &[u8], rest: &mut impl Iterator<Item = &'a OsString>) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for (nth, letter) in letters.iter().enumerate() {
        match letter {
            b'h' | b'V' | b'u' | b'z' | b'q' => found.push((char::from(*letter), None)),
            b'o' => {
                let joined = &letters[nth + 1..];
                let argument =
                    if joined.is_empty() { rest.next().cloned() } else { Some(OsString::from_vec(joined.to_vec())) };
                let argument = argument.ok_or("option requires an argument -- 'o'")?;
                found.push(('o', Some(argument)));
                break;
            }
            // What comes before it on the line has been seen, as with getopt.
            other if found.iter().any(|(option, _)| matches!(option, 'h' | 'V')) => {
                let _ = other;
                break;
            }
            other => return Err(format!("invalid option -- '{}'", OsStr::from_bytes(&[*other]).display())),
        }
    }
    Ok(found)
}

/// `name`, `name=argument`, and each beginning of a name that no other has.
fn long<'a>(word: &[u8], rest: &mut impl Iterator<Item = &'a OsString>) -> Result<Found, String> {
    let (name, joined) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(OsString::from_vec(word[at + 1..].to_vec()))),
        None => (word, None),
    };
    let exact = LONG.iter().find(|(long, ..)| long.as_bytes() == name);
    let mut possible = LONG.iter().filter(|(long, ..)| long.as_bytes().starts_with(name));
    let shown = || OsStr::from_bytes(word).display();
    let Some((long, letter, takes)) = exact.or_else(|| possible.next()) else {
        return Err(format!("unrecognized option '--{}'", shown()));
    };
    if exact.is_none() && possible.next().is_some() {
        let all = LONG.iter().filter(|(long, ..)| long.as_bytes().starts_with(name));
        let all: String = all.map(|(long, ..)| format!(" '--{long}'")).collect();
        return Err(format!("option '--{}' is ambiguous; possibilities:{all}", shown()));
    }
    match (takes, joined) {
        (Takes::Nothing, Some(_)) => Err(format!("option '--{long}' doesn't allow an argument")),
        (Takes::Argument, None) => {
            let argument = rest.next().cloned();
            let argument = argument.ok_or_else(|| format!("option '--{long}' requires an argument"))?;
            Ok((*letter, Some(argument)))
        }
        (_, joined) => Ok((*letter, joined)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Parsed, String> {
        parse(&line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect::<Vec<_>>())
    }

    fn work(line: &str) -> Arguments {
        match read(line) {
            Ok(Parsed::Work(arguments)) => arguments,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_of_libraries() {
        let mount = work("-o ro,allow_other -- /v");
        assert_eq!(
            (mount.work, &*mount.options, mount.mount_point),
            (Work::Mount { sync_init: false }, "ro,allow_other", "/v".into())
        );
        assert_eq!(work("-o ro -o rw /v").options, "rw");
        assert_eq!(work("/v -oro").options, "ro");
        assert_eq!(work("--sync-init -o ro --comm-fd=5 -- /v").comm_fd, Some("5".into()));
        for line in ["-u -q -z -- /v", "-uqz /v", "/v --unm --qu --laz", "--unmount --quiet --lazy -- /v"] {
            assert_eq!(work(line).work, Work::Unmount { lazy: true, quiet: true });
        }
        assert_eq!(work("--auto-unmount -- /v").work, Work::AutoUnmount);
        assert_eq!(read("-V -x"), Ok(Parsed::Version));
        assert_eq!(read("--features=text"), Ok(Parsed::Features { in_words: true }));
    }

    proptest! {
        #[test]
        fn no_words_panic(words in proptest::collection::vec("-{0,2}[a-zVU=]{0,12}", 0..6)) {
            let _ = parse(&words.into_iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
