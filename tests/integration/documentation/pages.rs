//! The pages of the documentation, and the blocks of code in them.
//!
//! Pure, but for reading the files.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a block of commands is run.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Where {
    /// `sh`: on a test node.
    Node,
    /// `sh in-container`: in its mounter's container.
    Container,
    /// `sh needs-cluster`: not by a test. It has kubectl or Helm talk to a cluster.
    Cluster,
    /// `sh needs-checkout`: not by a test. It has make build or test the project in its own directory.
    Checkout,
    /// `sh needs-machine`: not by a test. It is for another system, container runtime or server than the test node.
    Machine,
}

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// The number of its first line.
    pub(super) line: usize,
    /// What follows the fence's three backquotes.
    pub(super) info: String,
    /// What is in it, without the indentation of its fence.
    pub(super) text: String,
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// Its path in the project.
    pub(super) name: String,
    /// All of it.
    pub(super) text: String,
    /// Its blocks.
    pub(super) blocks: Vec<Block>,
}

/// The directory of the project.
pub(super) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages that tell people what to do.
pub(super) fn all() -> Vec<Page> {
    let mut files = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md"), PathBuf::from("SECURITY.md")];
    add("docs", &mut files);
    add("kubelet-config", &mut files);
    let page = |file: PathBuf| {
        let text = fs::read_to_string(project().join(&file)).unwrap();
        let name = file.to_str().unwrap().to_owned();
        let blocks = blocks(&name, &text);
        Page { name, text, blocks }
    };
    files.into_iter().map(page).collect()
}

fn add(directory: &str, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(project().join(directory)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in names {
        let path = format!("{directory}/{name}");
        if project().join(&path).is_dir() {
            add(&path, files);
        } else if path.ends_with(".md") {
            files.push(path.into());
        }
    }
}

/// The blocks of a page. Code that is indented only would be seen by nobody, and is an error.
pub(super) fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    let mut blank = true;
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        let inside = line.trim_start();
        let indentation = line.len() - inside.len();
        match (&mut open, inside.strip_prefix("```")) {
            (Some(_), Some("")) => found.extend(open.take().map(|(_, block)| block)),
            (Some((by, block)), _) => {
                block.text.push_str(line.get((*by).min(indentation)..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, Some(info)) => {
                assert_ne!(info, "", "{page}:{number}: a block says its language: sh, toml, yaml, json, text");
                open = Some((indentation, Block { line: number, info: info.to_owned(), text: String::new() }));
            }
            (None, None) => {
                assert!(
                    !blank || indentation < 4 || inside.is_empty(),
                    "{page}:{number}: write code in a fenced block"
                );
                blank = inside.is_empty();
            }
        }
    }
    assert!(open.is_none(), "{page}: the last block has no end");
    found
}

impl Block {
    /// Where its commands are run; None if it has no commands.
    pub(super) fn commands(&self, page: &str) -> Option<Where> {
        let (language, needs) = self.info.split_once(' ').unwrap_or((&self.info, ""));
        match (language, needs) {
            ("sh", "") => Some(Where::Node),
            ("sh", "in-container") => Some(Where::Container),
            ("sh", "needs-cluster") => Some(Where::Cluster),
            ("sh", "needs-checkout") => Some(Where::Checkout),
            ("sh", "needs-machine") => Some(Where::Machine),
            ("toml" | "yaml" | "json" | "text" | "mermaid", "") => None,
            _ => panic!("{page}:{}: a block is none of `{}`", self.line, self.info),
        }
    }
}
