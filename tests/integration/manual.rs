//! Manual pages and completions, as the programs take them that they are for.

use crate::harness::{Test, tests};
use crate::node::Done;
use crate::node::programs::HOSTMOUNT;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        man_takes_each_page_without_a_warning.anywhere().needs(&["man"]).quick(),
        shells_take_the_completions.anywhere().needs(&["bash", "zsh", "fish"]).quick(),
    ]
}

fn hostmount(arguments: &[&str]) -> String {
    Done::from(Command::new(HOSTMOUNT).args(arguments).output().unwrap()).ok("hostmount")
}

fn man_takes_each_page_without_a_warning() {
    let directory = std::env::temp_dir().join(format!("hostmount-manual-{}", std::process::id()));
    hostmount(&["manual", "--to", directory.to_str().unwrap()]);
    let names = hostmount(&["manual"]);
    for name in names.lines() {
        let section = name.rsplit_once('.').unwrap().1;
        let file = directory.join(format!("man{section}")).join(name);
        assert_eq!(fs::read_to_string(&file).unwrap(), hostmount(&["manual", name]));
        let mut man = Command::new("man");
        man.args(["--warnings", "--encoding=UTF-8", "--local-file"]).arg(&file);
        man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
        let Done { code, stdout, stderr } = man.output().unwrap().into();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{name}");
        assert!(stdout.contains("SEE ALSO"), "{name}: {stdout}");
    }
    fs::remove_dir_all(&directory).unwrap();
    for (page, words) in [
        ("hostmount-events", "hostmount events --follow -o json"),
        ("hostmount-mount.8", "--explain"),
        ("hostmount.toml", "hold_seconds = 10"),
    ] {
        assert!(hostmount(&["manual", page]).replace("\\-", "-").contains(words), "{page}");
    }
}

fn shells_take_the_completions() {
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = hostmount(&["completion", shell]);
        let mut command = Command::new(shell);
        let mut parsed = command.arg(check).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        parsed.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let done = Done::from(parsed.wait_with_output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(script.contains("policy") && script.contains("explain"), "{shell}");
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
