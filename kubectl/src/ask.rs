//! The same question to many mounters, a number of them at a time; and what becomes of those that do not answer it.
//!
//! Runs on a thread for each question that is open, and the main thread.

use crate::cluster::{Mounter, Where};
use crate::run::{Bounds, Done, RunError, run};
use api::exit::{Exit, chain};
use api::shown::shown;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How much one node may answer: more than thousands of volumes or events need.
const ANSWER: usize = 8 << 20;
/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How much of a complaint is shown.
const WORDS: usize = 600;

/// What kubectl adds when the program in the container fails.
const KUBECTLS: &str = "command terminated with exit code";
/// What hostmount says of a target that it does not know (`src/mounter/requests.rs`).
const UNKNOWN: &str = "no volume of hostmount's is or was at";

/// Why a node has no part in an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Its mounter does not run.
    #[error("{0}")]
    Down(String),
    /// kubectl did not end well.
    #[error(transparent)]
    Run(#[from] RunError),
    /// hostmount there does not know these words.
    #[error("its hostmount does not understand this, perhaps as it is older than {VERSION}: {0}")]
    NotUnderstood(String),
    /// There is no such volume there.
    #[error("{0}")]
    Unknown(String),
    /// Something else, which has an exit code: kubectl's, which is that of the program in the container if it got there.
    #[error("it failed (exit code {code}): {words}")]
    Failed {
        /// The code.
        code: i32,
        /// What it said.
        words: String,
    },
    /// kubectl has no exit code.
    #[error("kubectl was ended by a signal")]
    Killed,
    /// What came is something else.
    #[error("its answer is not hostmount's: {0}")]
    Nonsense(String),
}

impl Trouble {
    /// Of a program that has failed.
    pub(crate) fn of(Done { code, complaint }: Done) -> Self {
        let words = some_of(&complaint);
        match code {
            // clap's, in all programs of hostmount's.
            Some(2) if words.starts_with("error: ") => Self::NotUnderstood(words),
            Some(1) if words.contains(UNKNOWN) => Self::Unknown(words),
            Some(code) if words.is_empty() => Self::Failed { code, words: "it did not say why".to_owned() },
            Some(code) => Self::Failed { code, words },
            None => Self::Killed,
        }
    }

    /// The exit code that goes on.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed { code: code @ 1..=255, .. } => u8::try_from(*code).unwrap_or(Exit::System as u8),
            _ => Exit::System as u8,
        }
    }
}

/// The first words of a complaint, in one line.
fn some_of(complaint: &str) -> String {
    let lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(KUBECTLS));
    let mut words = lines.map(shown).collect::<Vec<_>>().join("; ");
    if words.len() > WORDS {
        words.truncate(words.floor_char_boundary(WORDS));
        words.push('…');
    }
    words.trim_end_matches('.').to_owned()
}

/// An element of a node's answer: as it came, and as it is understood.
#[derive(Debug, Clone)]
pub(crate) struct Element<T> {
    pub(crate) node: String,
    pub(crate) raw: Value,
    pub(crate) known: T,
}

impl<T: DeserializeOwned> Element<T> {
    /// From JSON.
    pub(crate) fn new(node: &str, raw: Value) -> Result<Self, Trouble> {
        let known = serde_json::from_value(raw.clone()).map_err(|error| nonsense(&error))?;
        Ok(Self { node: node.to_owned(), raw, known })
    }
}

impl<T> Element<T> {
    /// All that the node has said, and which node that is.
    pub(crate) fn document(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Document {
            node: String,
            #[serde(flatten)]
            said: serde_json::Map<String, Value>,
        }
        let mut said = self.raw.as_object().cloned().unwrap_or_default();
        said.remove("node");
        Document { node: self.node.clone(), said }
    }
}

fn nonsense(error: &serde_json::Error) -> Trouble {
    let words = error.to_string();
    Trouble::Nonsense(some_of(&words))
}

/// What nodes have answered, by their names; those that did not have been named on standard error.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// Their answers.
    pub(crate) of: Vec<(Mounter, T)>,
    /// Whether all have answered.
    pub(crate) complete: bool,
}

impl<T> Answers<T> {
    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        if self.complete { ExitCode::SUCCESS } else { Exit::System.into() }
    }
}

impl<T> Answers<Vec<T>> {
    /// All elements, and whether all nodes have answered.
    pub(crate) fn elements(self) -> Vec<T> {
        self.of.into_iter().flat_map(|(_, elements)| elements).collect()
    }
}

/// Says on standard error what is with a node.
pub(crate) fn complain(mounter: &Mounter, trouble: &Trouble) {
    linux::complain!("kubectl hostmount: {}: {}.", shown(&mounter.node), shown(&chain(trouble)));
}

impl Where {
    /// What `hostmount` with these words answers on each node: an array of objects.
    pub(crate) fn arrays<T: DeserializeOwned + Send>(
        &self,
        mounters: Vec<Mounter>,
        words: &[&str],
    ) -> Answers<Vec<Element<T>>> {
        self.answers(mounters, |mounter| self.array(mounter, words))
    }

    fn array<T: DeserializeOwned>(&self, mounter: &Mounter, words: &[&str]) -> Result<Vec<Element<T>>, Trouble> {
        let array: Vec<Value> = self.json(mounter, words)?;
        array.into_iter().map(|raw| Element::new(&mounter.node, raw)).collect()
    }

    /// What it answers there, as JSON: whatever its exit code is.
    pub(crate) fn json<T: DeserializeOwned>(&self, mounter: &Mounter, words: &[&str]) -> Result<T, Trouble> {
        let (text, done) = self.text(mounter, words)?;
        match serde_json::from_slice(&text) {
            Ok(json) => Ok(json),
            Err(error) if done.code == Some(0) => Err(nonsense(&error)),
            Err(_) => Err(Trouble::of(done)),
        }
    }

    /// What it writes there.
    pub(crate) fn text(&self, mounter: &Mounter, words: &[&str]) -> Result<(Vec<u8>, Done), Trouble> {
        if let Some(down) = &mounter.down {
            return Err(Trouble::Down(down.clone()));
        }
        let mut text = Vec::new();
        let bounds = Bounds { time: Some(self.time()), silence: false, output: Some(ANSWER), stop: None };
        let done = run(&mut self.hostmount(mounter, words), bounds, |piece| text.extend_from_slice(piece))?;
        Ok((text, done))
    }

    /// Asks all of them, some at a time.
    pub(crate) fn each<T: Send>(
        &self,
        mounters: Vec<Mounter>,
        ask: impl Fn(&Mounter) -> Result<T, Trouble> + Sync,
    ) -> Vec<(Mounter, Result<T, Trouble>)> {
        let (next, answers) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..self.parallel().min(mounters.len()) {
                scope.spawn(|| {
                    while let Some(mounter) = mounters.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let answer = ask(mounter);
                        answers.lock().unwrap_or_else(|poison| poison.into_inner()).push((mounter.clone(), answer));
                    }
                });
            }
        });
        let mut answers = answers.into_inner().unwrap_or_else(|poison| poison.into_inner());
        answers.sort_by(|(one, _), (other, _)| (&one.node, &one.pod).cmp(&(&other.node, &other.pod)));
        answers
    }

    /// The same, and names those on standard error that do not answer.
    pub(crate) fn answers<T: Send>(
        &self,
        mounters: Vec<Mounter>,
        ask: impl Fn(&Mounter) -> Result<T, Trouble> + Sync,
    ) -> Answers<T> {
        sorted_out(self.each(mounters, ask))
    }
}

/// Names those on standard error that did not answer.
pub(crate) fn sorted_out<T>(all: Vec<(Mounter, Result<T, Trouble>)>) -> Answers<T> {
    let mut answers = Answers { of: Vec::new(), complete: true };
    for (mounter, answer) in all {
        match answer {
            Ok(answer) => answers.of.push((mounter, answer)),
            Err(trouble) => {
                complain(&mounter, &trouble);
                answers.complete = false;
            }
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_what_to_think_of_a_node() {
        let trouble = |code, words: &str| Trouble::of(Done { code: Some(code), complaint: words.into() });
        let old = trouble(
            2,
            "error: unexpected argument '--output' found\n\nUsage: hostmount\ncommand terminated with exit code 2\n",
        );
        assert!(old.to_string().contains("older than 0."), "{old}");
        assert!(old.to_string().ends_with("unexpected argument '--output' found; Usage: hostmount"), "{old}");
        let none = trouble(1, "hostmount: no volume of hostmount's is or was at /mnt/a, or it ended too long ago.\n");
        assert!(matches!(none, Trouble::Unknown(_)), "{none:?}");
        let failed = trouble(32, &format!("\u{1b}[2J{}", "x".repeat(5000)));
        assert_eq!(failed.code(), 32);
        let words = failed.to_string();
        assert!(words.starts_with("it failed (exit code 32): \\u{1b}[2Jxxx") && words.len() < 1000, "{words}");
    }

    #[test]
    fn a_node_says_not_which_node_it_is() {
        let raw = serde_json::json!({ "node": "other", "target": "/a", "later": 1 });
        let element = Element::<show::document::Volume>::new("a", raw).unwrap();
        let document = serde_json::to_string(&element.document()).unwrap();
        assert_eq!(document, r#"{"node":"a","later":1,"target":"/a"}"#);
        for wrong in [serde_json::json!("x"), serde_json::json!({ "target": 3 })] {
            assert!(matches!(Element::<show::document::Volume>::new("a", wrong), Err(Trouble::Nonsense(_))));
        }
    }
}
