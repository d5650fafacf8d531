//! `mount`, as kubelet and operators call it on the node: mount(8)'s command line.
//!
//! Runs on the node with the caller's privileges. What is not a mount of a served type, or not understood, is the
//! business of the node's own mount(8).

use super::call::ask;
use super::node_program;
use super::served::is_served;
use crate::exit::Exit;
use crate::request::{MountOptions, OptionsError, Request, Switches};
use crate::secret::Secrets;
use crate::wire::{Call, Reply};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::process::ExitCode;

/// The part of mount(8)'s command line that a mount of a served type may have.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
struct Arguments {
    #[arg(short = 't', long = "types")]
    fstype: Option<String>,
    #[arg(short = 'o', long = "options")]
    options: Vec<String>,
    #[arg(short = 'f', long)]
    fake: bool,
    #[arg(short = 'n', long)]
    no_mtab: bool,
    #[arg(short = 'r', long)]
    read_only: bool,
    #[arg(short = 's')]
    sloppy: bool,
    #[arg(short = 'v', long)]
    verbose: bool,
    #[arg(short = 'w', long = "rw")]
    read_write: bool,
    places: Vec<String>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Wish {
    /// A mount for the mounter.
    Ours(Request),
    /// Not ours.
    NodesOwn,
    /// A mount for the mounter, but for `-f`: all has been checked that can be checked without it.
    Faked,
    /// Ours, but impossible: which target, and why.
    Bad(String, OptionsError),
}

/// Runs `mount` with `arguments` (without the program's name).
pub fn main(arguments: &[OsString]) -> ExitCode {
    // Kubelet calls an external mounter with the word `mount` first.
    let arguments = match arguments {
        [word, rest @ ..] if word == "mount" => rest,
        all => all,
    };
    match wish(arguments) {
        Wish::NodesOwn => node_program::become_it("mount", arguments),
        Wish::Bad(target, error) => fail(&target, Exit::Usage, &error.to_string()),
        Wish::Faked => ExitCode::SUCCESS,
        Wish::Ours(request) => mount(request),
    }
}

/// Reads a command line (without the program's name).
pub fn wish(arguments: &[OsString]) -> Wish {
    let Ok(matches) = Arguments::command().try_get_matches_from(arguments) else { return Wish::NodesOwn };
    let Ok(given) = Arguments::from_arg_matches(&matches) else { return Wish::NodesOwn };
    let Some(fstype) = given.fstype.filter(|fstype| is_served(fstype)) else { return Wish::NodesOwn };
    // Only with both is it a mount whose meaning does not depend on the node's fstab.
    let Ok([source, target]) = <[String; 2]>::try_from(given.places) else { return Wish::NodesOwn };
    // `-r` and `-w` are options, too, and of those that contradict each other the last one counts.
    let mut texts: Vec<(usize, &str)> = Vec::new();
    texts.extend(matches.indices_of("options").into_iter().flatten().zip(given.options.iter().map(String::as_str)));
    texts.extend(matches.index_of("read_only").filter(|_| given.read_only).map(|at| (at, "ro")));
    texts.extend(matches.index_of("read_write").filter(|_| given.read_write).map(|at| (at, "rw")));
    texts.sort_unstable();
    let mut options = MountOptions::default();
    for (_, text) in texts {
        match MountOptions::parse(text) {
            Ok(more) => options.append(more),
            Err(error) => return Wish::Bad(target, error),
        }
    }
    if options.iter().any(|option| acts_on_existing_mounts(&option.name)) {
        return Wish::NodesOwn;
    }
    if given.fake {
        return Wish::Faked;
    }
    let switches = Switches { sloppy: given.sloppy, no_mtab: given.no_mtab, verbose: given.verbose };
    Wish::Ours(Request { fstype, source, target, options, switches, secrets: Secrets::new() })
}

/// Operations of mount(8) that make no new filesystem; a type beside them means nothing.
fn acts_on_existing_mounts(option: &str) -> bool {
    let propagation = option.strip_prefix('r').unwrap_or(option);
    matches!(option, "remount" | "bind" | "rbind" | "move")
        || matches!(propagation, "shared" | "slave" | "private" | "unbindable")
}

fn mount(request: Request) -> ExitCode {
    let target = request.target.clone();
    match ask(&Call::Mount(request)) {
        Ok(Reply::Mounted { output }) => {
            show(&output);
            ExitCode::SUCCESS
        }
        Ok(Reply::Failed { exit, message, output }) => {
            show(&output);
            fail(&target, exit, &message)
        }
        Ok(_) => fail(&target, Exit::Internal, "the mounter answered another question"),
        Err(error) => fail(&target, error.exit(), &error.message()),
    }
}

/// The helper's own words, where mount(8)'s helpers write them.
fn show(output: &[String]) {
    for line in output {
        eprintln!("{line}");
    }
}

fn fail(target: &str, exit: Exit, message: &str) -> ExitCode {
    eprintln!("mount: {target}: {message}.");
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish_of(line: &str) -> Wish {
        wish(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn ours(line: &str) -> Request {
        match wish_of(line) {
            Wish::Ours(request) => request,
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
            assert!(matches!(wish_of(line), Wish::NodesOwn), "{line}");
        }
    }

    #[test]
    fn malformed_options_are_named() {
        assert!(matches!(wish_of("-t glusterfs -o context=\"a h:v /t"), Wish::Bad(target, _) if target == "/t"));
    }
}
