//! The documentation: its commands are run, and what is made from the programs is what they say.
//!
//! A block of commands (`sh`) is run on a test node or in its container, unless it says what it needs beside
//! (tests/node/pages.rs); then it is looked at: the files, make's targets and the subcommands in it are there.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::mounter::Mounter;
use crate::node::programs::{CSI, HOSTMOUNT, POD, TESTBED};
use crate::node::{Done, SERVER_ADDRESS, TestNode};
use pages::{Block, Page, Where, blocks, project};
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use testbed::machine::Network;

mod pages;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        each_command_is_run_or_says_what_it_needs.needs(gluster::PROGRAMS).needs(&["bindfs"]),
        what_is_not_run_is_there.anywhere().quick(),
        the_command_line_is_the_programs.anywhere().quick(),
        the_recording_is_the_demos,
        the_words_that_we_say_are_said.anywhere().quick(),
        no_block_goes_unseen.anywhere().quick(),
        each_page_is_in_the_book.anywhere().quick(),
        the_book_has_what_pages_link_to.anywhere().quick(),
    ]
}

/// Where the static pod and the DaemonSet have the mounter put its programs.
const BIN: &str = "/var/lib/kubelet/plugins/hostmount/bin";
const FLEXVOLUME: &str = "/var/lib/kubelet/plugins/volume/exec";

/// A node for each page, its mounter with the settings of deploy/base: in its network is `server` with the GlusterFS volume `gv0`. It is mounted at /mnt/data, unless
/// the page does so itself.
fn each_command_is_run_or_says_what_it_needs() {
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    server.volume("gv0");
    let (mut run, mut failed) = (0, String::new());
    for page in pages::all() {
        let here = |block: &&Block| matches!(block.commands(&page.name), Some(Where::Node | Where::Container));
        let blocks: Vec<_> = page.blocks.iter().filter(here).collect();
        if !blocks.is_empty() {
            failed += &run_all(&network, &page, &blocks);
        }
        run += blocks.len();
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(run >= 10, "only {run} blocks were run");
}

/// Returns what failed.
fn run_all(network: &Network, page: &Page, blocks: &[&Block]) -> String {
    let (test, _mounter) = node(network);
    let mounts = |block: &&Block| {
        let mounts = |line: &str| line.contains("mount -t") && line.contains(" /mnt/data") && !line.contains("--");
        block.text.lines().any(mounts)
    };
    if !blocks.iter().any(mounts) {
        test.mount(&["-t", "glusterfs", "server:/gv0", "/mnt/data"]).ok("mount");
    }
    let mut failed = String::new();
    for block in blocks {
        let place = format!("{}:{}", page.name, block.line);
        let (room, path) = match block.commands(&page.name) {
            Some(Where::Container) => (&test.container, "/usr/local/bin"),
            _ => (&test.node, BIN),
        };
        let script = format!("set -eu; PATH={path}:$PATH; cd /tmp\n{}", block.text);
        let Done { code, stdout, stderr } = room.sh(&script);
        if code != Some(0) {
            failed += &format!("--- {place}: {code:?}\n{}{stdout}{stderr}", block.text);
        }
    }
    failed
}

fn node(network: &Network) -> (TestNode, Mounter) {
    let test = TestNode::start_in(network);
    test.node.sh_ok("mkdir -p /mnt/data");
    test.container.sh_ok(&format!("echo '{SERVER_ADDRESS} server' >>/etc/hosts; mkdir /run/hostmount-csi"));
    test.configure(&fs::read_to_string(project().join("deploy/base/config.toml")).unwrap());
    for (name, program) in [("hostmount-csi", &*CSI), ("hostmount-pod", &*POD)] {
        test.container.program(&format!("/usr/local/bin/{name}"), fs::read(program).unwrap());
    }
    let mounter = test.start_mounter(&["--install", BIN, "--install-flexvolume", FLEXVOLUME], &[]);
    (test, mounter)
}

/// Of blocks that are not run: what they name of the project is there. Of all pages: so are the subcommands in the text.
fn what_is_not_run_is_there() {
    let makefile = fs::read_to_string(project().join("Makefile")).unwrap();
    let targets: Vec<_> = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap().split(' ').collect();
    let commands = subcommands();
    let mut seen = 0;
    for page in pages::all() {
        for rest in page.text.split("`hostmount ").skip(1) {
            let named = rest.split([' ', '`', '\n', ',']).next().unwrap();
            let known = !named.starts_with(|first: char| first.is_ascii_lowercase())
                || commands.iter().any(|command| command == named);
            assert!(known, "{}: there is no `hostmount {named}`", page.name);
        }
        for block in &page.blocks {
            let Some(Where::Cluster | Where::Checkout | Where::Machine) = block.commands(&page.name) else { continue };
            seen += 1;
            let place = format!("{}:{}", page.name, block.line);
            for line in block.text.lines().map(|line| line.split(" #").next().unwrap()) {
                let words: Vec<_> = line.split_whitespace().collect();
                if let ["make", target, ..] = words[..] {
                    assert!(targets.contains(&target), "{place}: there is no target {target}");
                }
                if let Some(at) = words.iter().position(|word| *word == "hostmount" || word.ends_with("/hostmount"))
                    && let (Some(&"--" | &"node") | None, Some(named)) = (words[..at].last(), words.get(at + 1))
                {
                    assert!(
                        commands.iter().any(|command| command == named),
                        "{place}: there is no `hostmount {named}`"
                    );
                }
                for word in words.iter().map(|word| word.trim_start_matches('@')) {
                    let ours = ["deploy/", "static-pods/", "kubelet-config/"].iter().any(|ours| word.starts_with(ours));
                    assert!(!ours || project().join(word).exists(), "{place}: there is no {word}");
                }
            }
        }
    }
    assert!(seen >= 10, "only {seen} blocks");
}

/// docs/command-line.md is each command's help. `HOSTMOUNT_REWRITE=yes` writes it anew.
fn the_command_line_is_the_programs() {
    let mut page = String::from(
        "# Command line\n\nEach command's `--help`, from which the manual pages are made too (`hostmount manual`). A test writes this page.\n",
    );
    for words in std::iter::once(String::new()).chain(subcommands()) {
        let arguments: Vec<_> = words.split_whitespace().chain(["--help"]).collect();
        let title = format!("hostmount {words}");
        let help = hostmount(&arguments);
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        page += &format!("\n## {}\n\n```text\n{}\n```\n", title.trim(), help.join("\n"));
    }
    let path = project().join("docs/command-line.md");
    if std::env::var_os("HOSTMOUNT_REWRITE").is_some_and(|value| value == "yes") {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == page, "docs/command-line.md has other words than --help; HOSTMOUNT_REWRITE=yes writes it anew");
}

/// docs/demo.svg has each line that the demo prints, but for its numbers; docs/record-demo draws it.
fn the_recording_is_the_demos() {
    let picture = fs::read_to_string(project().join("docs/demo.svg")).unwrap();
    assert!(picture.len() < 100_000, "docs/demo.svg has {} bytes", picture.len());
    // No mark, no number: what is left are the words.
    let words = |text: &str| {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#x27;", "'");
        let letters = text.replace("&amp;", "&").replace(|c: char| c.is_ascii_digit() || c == '.', " ");
        letters.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let without_marks =
        |line: &str| line.split('<').filter_map(|part| Some(part.split_once('>')?.1)).collect::<String>();
    let drawn: Vec<_> = picture.lines().map(|line| words(&without_marks(line))).collect();
    let printed = Done::from(Command::new(&*TESTBED).output().unwrap()).ok("demo");
    for line in printed.lines().map(words) {
        assert!(drawn.contains(&line), "docs/demo.svg has not: {line}\n{drawn:#?}");
    }
}

/// The words of docs/symptoms.md that are ours are in the programs.
fn the_words_that_we_say_are_said() {
    let page = fs::read_to_string(project().join("docs/symptoms.md")).unwrap();
    let mut sources = String::new();
    for directory in ["src", "api/src", "shims/src", "csi/src", "linux/src"] {
        add_sources(&project().join(directory), &mut sources);
    }
    // A text that goes on in the next line of the source has a backslash there.
    let said: String = sources.split("\\\n").map(|part| part.trim_start_matches(' ')).collect();
    let mut quoted: Vec<&str> = Vec::new();
    for section in page.split("\n### ").skip(1) {
        let (title, text) = section.split_once("\n\n").unwrap();
        quoted.extend(text.starts_with("Said by hostmount").then_some(title));
    }
    for table in page.split("| it says | do |\n").skip(1) {
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        quoted.extend(rows.filter_map(|row| row.split('|').nth(1)));
    }
    let mut checked = 0;
    for words in quoted.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).flat_map(|quote| quote.split('…'))
    {
        // What stands around a value in the source.
        let words = words.trim_matches(|c: char| !c.is_ascii_alphabetic());
        assert!(said.contains(words), "docs/symptoms.md: nobody says '{words}'");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} were looked for");
}

fn add_sources(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

fn each_page_is_in_the_book() {
    let contents = fs::read_to_string(project().join("docs/SUMMARY.md")).unwrap();
    for page in pages::all().iter().filter(|page| page.name != "docs/SUMMARY.md") {
        let from_there = page.name.strip_prefix("docs/").map_or_else(|| format!("../{}", page.name), str::to_owned);
        assert!(contents.contains(&format!("]({from_there})")), "docs/SUMMARY.md has no {from_there}");
    }
}

/// docs/make-book copies what pages link to, also where that is no page.
fn the_book_has_what_pages_link_to() {
    let script = fs::read_to_string(project().join("docs/make-book")).unwrap();
    let (_, list) = script.split_once("cp -r --parents ./*.md ").unwrap();
    let copied: Vec<_> = list.split_whitespace().take_while(|word| !word.starts_with('"')).collect();
    let mut seen = 0;
    for page in pages::all() {
        for link in page.text.split("](").skip(1) {
            let file = link.split([')', '#']).next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let mut path = Path::new(&page.name).parent().unwrap().to_owned();
            for part in Path::new(file) {
                if part == ".." { assert!(path.pop(), "{}: {file}", page.name) } else { path.push(part) }
            }
            let is_copied = copied.iter().any(|name| path.starts_with(name));
            let is_at_the_top = path.extension().is_some_and(|end| end == "md") && path.components().count() == 1;
            assert!(is_copied || is_at_the_top, "{}: docs/make-book does not copy {}", page.name, path.display());
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} links were seen");
}

/// What the other tests rely on.
fn no_block_goes_unseen() {
    let text = "a\n\n1. b\n\n   ```sh in-container\n   c\n     d\n   ```\n\n```toml\ne\n```\n";
    let found = blocks("page", text);
    let seen: Vec<_> = found.iter().map(|block| (block.line, block.text.as_str(), block.commands("page"))).collect();
    assert_eq!(seen, [(5, "c\n  d\n", Some(Where::Container)), (10, "e\n", None)]);
    let refused =
        ["a\n\n    make demo\n", "```\nls\n```\n", "```sh\nls\n", "```sh later\nls\n```\n", "```bash\nls\n```\n"];
    for text in refused {
        let seen = catch_unwind(|| blocks("page", text).iter().map(|block| block.commands("page")).collect::<Vec<_>>());
        assert!(seen.is_err(), "{text}");
    }
}

fn hostmount(arguments: &[&str]) -> String {
    Done::from(Command::new(HOSTMOUNT).args(arguments).env_clear().output().unwrap()).ok("hostmount")
}

/// All subcommands, in the words of the command line.
fn subcommands() -> Vec<String> {
    let pages = hostmount(&["manual"]);
    let name = |page: &str| Some(page.rsplit_once('.')?.0.strip_prefix("hostmount-")?.to_owned());
    let names: Vec<_> = pages.lines().filter_map(name).collect();
    // A page's name has `-` between the words of a command, as some commands have in one word.
    let below = |name: &String| name.split_once('-').is_some_and(|(above, _)| names.iter().any(|other| other == above));
    names
        .iter()
        .map(|name| if below(name) && !name.starts_with("serve-") { name.replace('-', " ") } else { name.clone() })
        .collect()
}
