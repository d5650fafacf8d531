//! Notes of tests beside their outcome: seeds, figures, and messages of panics. They are kept while a test runs,
//! and shown if it fails; on threads that keep none they are printed at once.
//!
//! Runs in the tests' process: notes belong to the thread that a test runs on.

use std::cell::RefCell;
use std::fmt::Display;
use std::panic;
use std::sync::Mutex;

/// The beginning of a panic's note.
pub const PANICKED: &str = "panicked at ";

thread_local! {
    static NOTES: RefCell<Option<String>> = const { RefCell::new(None) };
}

static ELSEWHERE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps this thread's notes from now on.
pub fn keep() {
    NOTES.set(Some(String::new()));
}

/// What was kept. From now on notes are printed.
pub fn take() -> String {
    NOTES.take().unwrap_or_default()
}

/// Adds a note, a line or more.
pub fn note(words: impl Display) {
    if !kept(&words) {
        println!("{words}");
    }
}

fn kept(words: &impl Display) -> bool {
    NOTES.with_borrow_mut(|notes| notes.as_mut().map(|notes| *notes += &format!("{words}\n"))).is_some()
}

/// From now on a panic is a note, with its place. On threads without notes it is printed to stderr, and kept for the
/// test that waits for the thread: see [`elsewhere`].
pub fn note_panics() {
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let note = format!("{PANICKED}{place}:\n{}", panic.payload_as_str().unwrap_or_default());
        if !kept(&note) {
            ELSEWHERE.lock().unwrap().push(note);
            otherwise(panic);
        }
    }));
}

/// The note of another thread's panic with this message.
pub fn elsewhere(words: &str) -> Option<String> {
    ELSEWHERE.lock().unwrap().iter().rev().find(|note| note.ends_with(words)).cloned()
}
