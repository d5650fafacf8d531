//! `mount`, as kubelet and operators call it on the node: mount(8)'s command line.
//!
//! Runs on the node with the caller's privileges. What is not a mount of a served type, or not understood, is left to
//! the node's own mount(8).

use crate::node_program;
use crate::served_types::is_served;
use api::client::Client;
use api::exit::Exit;
use api::message::Failure;
use api::mount_words::acts_on_existing_mounts;
use api::options::{MountOptions, OptionsError};
use api::origin::Origin;
use api::request::{Request, Switches};
use api::secret::Secrets;
use api::shown::shown;
use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;
use std::ffi::OsString;

/// The part of mount(8)'s command line that a mount of a served type may have.
#[derive(Debug, Default)]
struct Arguments {
    fstype: Option<String>,
    /// Each `-o`, and `-r` and `-w`, which are options too: of contradicting ones the last one counts.
    options: Vec<String>,
    fake: bool,
    switches: Switches,
    /// Source and target.
    places: Vec<String>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// A mount for the mounter.
    Ours(Request),
    /// Not ours.
    NodesOwn,
    /// A mount for the mounter, but for `-f`: all has been checked that can be checked without it.
    Faked,
    /// For the mounter, but malformed: the target, and the error.
    Bad(String, OptionsError),
}

/// Runs `mount` with `arguments` (without the program's name) for a caller from `origin`. Returns the exit status.
pub fn main(arguments: &[OsString], origin: Origin) -> u8 {
    // Kubelet calls an external mounter with the word `mount` first.
    let arguments = match arguments {
        [word, rest @ ..] if word == "mount" => rest,
        all => all,
    };
    match invocation(arguments) {
        Invocation::NodesOwn => node_program::become_it("mount", arguments),
        Invocation::Bad(target, error) => fail(&target, Exit::Usage, &error.to_string()),
        Invocation::Faked => 0,
        Invocation::Ours(request) => mount(request, origin),
    }
}

/// Understands a command line (without the program's name).
pub fn invocation(arguments: &[OsString]) -> Invocation {
    let Ok(given) = parse(arguments) else { return Invocation::NodesOwn };
    let Some(fstype) = given.fstype.filter(|fstype| is_served(fstype)) else { return Invocation::NodesOwn };
    // Only with both is it a mount whose meaning does not depend on the node's fstab.
    let Ok([source, target]) = <[String; 2]>::try_from(given.places) else { return Invocation::NodesOwn };
    let mut options = MountOptions::default();
    for text in given.options {
        match MountOptions::parse(&text) {
            Ok(more) => options.append(more),
            Err(error) => return Invocation::Bad(target, error),
        }
    }
    if options.iter().any(|option| acts_on_existing_mounts(&option.name)) {
        return Invocation::NodesOwn;
    }
    if given.fake {
        return Invocation::Faked;
    }
    Invocation::Ours(Request { fstype, source, target, options, switches: given.switches, secrets: Secrets::new() })
}

/// Whatever it does not know is an error: the node's own mount(8) may know it.
fn parse(arguments: &[OsString]) -> Result<Arguments, lexopt::Error> {
    let mut given = Arguments::default();
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('t') | Long("types") => given.fstype = Some(text(parser.value()?)?),
            Short('o') | Long("options") => given.options.push(text(parser.value()?)?),
            Short('r') | Long("read-only") => given.options.push("ro".to_owned()),
            Short('w') | Long("rw" | "read-write") => given.options.push("rw".to_owned()),
            Short('f') | Long("fake") => given.fake = true,
            Short('n') | Long("no-mtab") => given.switches.no_mtab = true,
            Short('s') => given.switches.sloppy = true,
            Short('v') | Long("verbose") => given.switches.verbose = true,
            Value(place) => given.places.push(text(place)?),
            unknown => return Err(unknown.unexpected()),
        }
    }
    Ok(given)
}

fn text(argument: OsString) -> Result<String, lexopt::Error> {
    argument.into_string().map_err(lexopt::Error::NonUnicodeValue)
}

fn mount(request: Request, origin: Origin) -> u8 {
    let target = request.target.clone();
    match Client::from_environment(origin).mount(request) {
        Ok(mounted) => {
            show(&mounted.output);
            0
        }
        Err(error) => {
            let Failure { exit, message, output, .. } = error.into_failure();
            show(&output);
            fail(&target, exit, &message)
        }
    }
}

/// Prints the helper's output to standard error, where mount(8)'s helpers write it.
fn show(output: &[String]) {
    for line in output {
        linux::complain!("{}", shown(line));
    }
}

fn fail(target: &str, exit: Exit, message: &str) -> u8 {
    linux::complain!("mount: {}: {}.", shown(target), shown(message));
    exit as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation_of(line: &str) -> Invocation {
        invocation(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn ours(line: &str) -> Request {
        match invocation_of(line) {
            Invocation::Ours(request) => request,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn kubelets_calls_are_ours() {
        let request = ours("-t glusterfs -o auto_unmount,ro -o log-level=ERROR 10.0.0.1:vol /var/lib/kubelet/x");
        assert_eq!(request.options.to_string(), "auto_unmount,ro,log-level=ERROR");
        assert_eq!((request.source.as_str(), request.target.as_str()), ("10.0.0.1:vol", "/var/lib/kubelet/x"));
        assert_eq!(ours("-t fuse.bindfs a /t -o ro -w").options.to_string(), "ro,rw");
    }

    #[test]
    fn everything_else_is_the_nodes() {
        for line in [
            "",
            "-a",
            "--version",
            "-h",
            "-t tmpfs tmpfs /t",
            "-o bind /a /b",
            "-t glusterfs -o remount,ro h:v /t",
            "-t nfs /only-one",
            "-t glusterfs --no-such-option h:v /t",
            "-t glusterfs -o rslave h:v /t",
            "-t nofuse,glusterfs h:v /t",
        ] {
            assert!(matches!(invocation_of(line), Invocation::NodesOwn), "{line}");
        }
    }

    #[test]
    fn malformed_options_are_named() {
        assert!(
            matches!(invocation_of("-t glusterfs -o context=\"a h:v /t"), Invocation::Bad(target, _) if target == "/t")
        );
    }
}
