//! Manual pages and completions, as the programs take them that they are for.

use crate::harness::{Test, tests};
use crate::node::Done;
use crate::node::programs::{HOSTMOUNT, KUBECTL};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        man_takes_each_page_without_a_warning.anywhere().needs(&["man"]).quick(),
        shells_take_the_completions.anywhere().needs(&["bash", "zsh", "fish"]).quick(),
    ]
}

fn run(program: &Path, arguments: &[&str]) -> String {
    Done::from(Command::new(program).args(arguments).output().unwrap()).ok("it")
}

fn hostmount(arguments: &[&str]) -> String {
    run(Path::new(HOSTMOUNT), arguments)
}

/// The programs that have pages and completions, by the name in these.
fn programs() -> [(&'static str, &'static Path); 2] {
    [("hostmount", Path::new(HOSTMOUNT)), ("kubectl-hostmount", &KUBECTL)]
}

fn man_takes_each_page_without_a_warning() {
    programs().iter().for_each(|(name, program)| man_takes_each_page_of(name, program));
    for (page, words) in [
        ("hostmount-events", "hostmount events --follow -o json"),
        ("hostmount-mount.8", "--explain"),
        ("hostmount.toml", "hold_seconds = 10"),
    ] {
        assert!(hostmount(&["manual", page]).replace("\\-", "-").contains(words), "{page}");
    }
    let swap = run(&KUBECTL, &["manual", "kubectl-hostmount-swap"]).replace("\\-", "-");
    for words in ["kubectl hostmount swap", "--keep-going", "kubectl-hostmount-swap - "] {
        assert!(swap.replace("\\fB", "").replace("\\fR", "").contains(words), "{words}: {swap}");
    }
}

fn man_takes_each_page_of(program_name: &str, program: &Path) {
    let directory = std::env::temp_dir().join(format!("{program_name}-manual-{}", std::process::id()));
    run(program, &["manual", "--to", directory.to_str().unwrap()]);
    let names = run(program, &["manual"]);
    assert!(names.lines().all(|name| name.starts_with(program_name)) && names.lines().count() > 9, "{names}");
    for name in names.lines() {
        let section = name.rsplit_once('.').unwrap().1;
        let file = directory.join(format!("man{section}")).join(name);
        assert_eq!(fs::read_to_string(&file).unwrap(), run(program, &["manual", name]));
        let mut man = Command::new("man");
        man.args(["--warnings", "--encoding=UTF-8", "--local-file"]).arg(&file);
        man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
        let Done { code, stdout, stderr } = man.output().unwrap().into();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{name}");
        assert!(stdout.contains("SEE ALSO"), "{name}: {stdout}");
    }
    fs::remove_dir_all(&directory).unwrap();
}

fn shells_take_the_completions() {
    let shells = [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")];
    for ((shell, check), (_, program)) in shells.iter().flat_map(|shell| programs().map(|program| (shell, program))) {
        let script = run(program, &["completion", shell]);
        let mut command = Command::new(shell);
        let mut parsed = command.arg(*check).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        parsed.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let done = Done::from(parsed.wait_with_output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(script.contains("doctor") && script.contains("dry-run"), "{shell}");
    }
    let completed = |words: &str, word: &str| {
        let script = hostmount(&["completion", "bash"]);
        let count = words.split(' ').count();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words} '{word}') COMP_CWORD={count}; _hostmount hostmount '{word}' x; echo \"${{COMPREPLY[@]}}\""
        );
        Done::from(Command::new("bash").args(["-c", &ask]).output().unwrap()).ok("bash")
    };
    assert_eq!(completed("hostmount", "ev"), "events\n");
    assert_eq!(completed("hostmount swap", "--dry"), "--dry-run\n");
    assert_eq!(completed("hostmount policy", "ch"), "check\n");
}
