//! What happened to volumes, for `hostmount events`: kept in the state directory, where the next mounter finds it.
//!
//! Runs in the mounter, on every thread that logs. There are two files of JSON lines: one that is added to, and the one before it, whose
//! place it takes when it is full. So what is kept has a bound, and nothing is ever rewritten: a mounter that is killed leaves at
//! most one line unfinished, which is passed over.

use api::event::{Events, VolumeEvent};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The files in the state directory.
pub const FILES: [&str; 2] = ["events", "events.old"];
/// How many bytes each of them may have: a few thousand events.
const LONGEST: u64 = 512 << 10;
/// How much of a word of others is kept. A path may be longer than all else.
const WORD: usize = 1024;
const PATH: usize = 4096;
/// How many events of one volume are kept in how long a time: a pod whose program comes and goes all the time shall not displace those of others.
const OF_ONE: u32 = 60;
const WHILE: Duration = Duration::from_secs(600);
/// Of how many volumes that is counted.
const COUNTED: usize = 4096;

/// The events that are kept. There are none before it is [opened](Journal::open).
#[derive(Debug, Default)]
pub struct Journal(OnceLock<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    directory: PathBuf,
    file: File,
    length: u64,
    /// The number of the last event.
    last: u64,
    /// By their targets: how many events of a volume there were, and since when.
    counts: HashMap<String, (Instant, u32)>,
    trouble: Option<String>,
}

impl Journal {
    /// Goes on with the files in the state directory, which no other mounter has any more.
    pub fn open(&self, state: &Path) -> io::Result<()> {
        let [events, old] = FILES.map(|name| read(&state.join(name)).unwrap_or_default());
        let last = [&old, &events].into_iter().flat_map(|text| parse(text)).map(|event| event.number).max();
        let mut file = appended_to(&state.join(FILES[0]))?;
        // The last mounter may have been killed in the middle of a line.
        if !events.is_empty() && !events.ends_with(b"\n") {
            file.write_all(b"\n")?;
        }
        let length = file.metadata()?.len();
        let (directory, last, counts) = (state.to_owned(), last.unwrap_or(0), HashMap::new());
        let kept = Kept { directory, file, length, last, counts, trouble: None };
        // A second call would be a second mounter in this process.
        self.0.set(Mutex::new(kept)).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    /// Keeps an event, which gets its number and its time here.
    pub fn keep(&self, mut event: VolumeEvent) {
        let Some(kept) = self.0.get() else { return };
        // What a thread that panicked has left is a line at most.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.count(&event.target) {
            0..OF_ONE => {}
            OF_ONE => event.message.push_str("; further events of this volume are not kept for some minutes"),
            _ => return,
        }
        kept.last += 1;
        event.number = kept.last;
        event.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        cut(&mut event.target, PATH);
        let words = [Some(&mut event.message), event.fstype.as_mut(), event.source.as_mut()];
        words.into_iter().flatten().for_each(|word| cut(word, WORD));
        if let Err(error) = kept.write(&event) {
            // Not to the log: this is called for lines of it.
            kept.trouble = Some(format!("cannot write {}: {error}", kept.directory.join(FILES[0]).display()));
        }
    }

    /// The events after that number; those with a greater one than the last there is are from before a loss: all of them.
    pub fn after(&self, number: u64) -> Events {
        let Some(kept) = self.0.get() else { return Events::default() };
        let (directory, trouble, last) = {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.directory.clone(), kept.trouble.clone(), kept.last)
        };
        if number == last {
            return Events { events: Vec::new(), trouble };
        }
        // One of them may take the other's place meanwhile: the older is read once more then, and each event is there once.
        let texts = [FILES[1], FILES[0], FILES[1]].map(|name| read(&directory.join(name)).unwrap_or_default());
        let mut events: Vec<_> = texts.iter().flat_map(|text| parse(text)).collect();
        events.sort_by_key(|event| event.number);
        events.dedup_by_key(|event| event.number);
        events.retain(|event| event.number > number || number > last);
        Events { events, trouble }
    }
}

impl Kept {
    /// How many events of this volume there were in a while.
    fn count(&mut self, target: &str) -> u32 {
        if self.counts.len() >= COUNTED && !self.counts.contains_key(target) {
            self.counts.clear();
        }
        let (since, count) = self.counts.entry(target.to_owned()).or_insert((Instant::now(), 0));
        if since.elapsed() > WHILE {
            (*since, *count) = (Instant::now(), 0);
        }
        *count = count.saturating_add(1);
        *count - 1
    }

    fn write(&mut self, event: &VolumeEvent) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.length > 0 && self.length + length > LONGEST {
            let [events, old] = FILES.map(|name| self.directory.join(name));
            fs::rename(&events, old)?;
            self.file = appended_to(&events)?;
            self.length = 0;
        }
        if let Err(error) = self.file.write_all(&line) {
            // What was written of it is no line.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += length;
        self.trouble = None;
        Ok(())
    }
}

fn appended_to(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file: OwnedFd = match openat(CWD, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    // Not more than is ever written.
    File::from(file).take(2 * LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The events of a file. What is none is passed over: the end of one line, or what another version has written.
pub fn parse(text: &[u8]) -> impl Iterator<Item = VolumeEvent> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).filter(|event: &VolumeEvent| event.number > 0)
}

fn cut(word: &mut String, longest: usize) {
    if word.len() > longest {
        word.truncate(word.floor_char_boundary(longest));
        word.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("hostmount-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn event(message: impl Into<String>) -> VolumeEvent {
        VolumeEvent { event: "volume.mounted".into(), message: message.into(), ..VolumeEvent::default() }
    }

    fn open(state: &Path) -> Journal {
        let journal = Journal::default();
        journal.open(state).unwrap();
        journal
    }

    fn messages(journal: &Journal, after: u64) -> Vec<String> {
        journal.after(after).events.into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn the_next_mounter_has_them_and_a_torn_line_costs_itself_alone() {
        let state = directory("next");
        let first = open(&state);
        first.keep(event("one"));
        first.keep(event("two\nforged\u{1b}"));
        let mut file = appended_to(&state.join(FILES[0])).unwrap();
        file.write_all(br#"{"number":3,"mess"#).unwrap();
        let second = open(&state);
        second.keep(event("three"));
        assert_eq!(messages(&second, 0), ["one", "two\nforged\u{1b}", "three"]);
        assert_eq!(second.after(0).events.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(messages(&second, 2), ["three"]);
        assert_eq!(messages(&second, 3), Vec::<String>::new());
        assert_eq!(messages(&second, 99).len(), 3, "the state directory is another one now");
        assert!(second.after(0).events[0].time > 1_700_000_000);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let state = directory("bound");
        let journal = open(&state);
        let size = || FILES.iter().filter_map(|name| Some(fs::metadata(state.join(name)).ok()?.len())).sum::<u64>();
        for number in 0..3000 {
            let target = format!("/mnt/{number}");
            journal.keep(VolumeEvent { target, ..event("é\u{1b}".repeat(2000)) });
            assert!(size() <= 2 * LONGEST, "{number}");
        }
        let events = journal.after(0).events;
        assert!(events.len() > 100, "{}", events.len());
        assert!(events.iter().zip(3001 - events.len() as u64..).all(|(event, number)| event.number == number));
        assert!(events.iter().all(|event| event.message.len() <= WORD + '…'.len_utf8()));
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn one_that_is_loud_displaces_no_other() {
        let state = directory("loud");
        let journal = open(&state);
        let of = |target: &str| journal.keep(VolumeEvent { target: target.into(), ..event("again") });
        of("/mnt/quiet");
        (0..100_000).for_each(|_| of("/mnt/loud"));
        of("/mnt/quiet");
        let events = journal.after(0).events;
        assert_eq!(events.iter().filter(|event| event.target == "/mnt/quiet").count(), 2);
        assert_eq!(events.len(), 2 + OF_ONE as usize + 1);
        assert!(events[events.len() - 2].message.starts_with("again; further events of this volume"));
        for number in 0..3 * COUNTED {
            of(&format!("/mnt/{number}"));
        }
        assert!(journal.0.get().unwrap().lock().unwrap().counts.len() <= COUNTED);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn what_cannot_be_kept_is_no_secret_and_no_link_is_followed() {
        let state = directory("link");
        let journal = open(&state);
        fs::remove_dir_all(&state).unwrap();
        for number in 0..2000 {
            journal.keep(VolumeEvent { target: number.to_string(), ..event("x".repeat(WORD)) });
        }
        let trouble = journal.after(0).trouble.unwrap();
        assert!(trouble.starts_with("cannot write ") && trouble.contains("No such file"), "{trouble}");
        fs::create_dir_all(&state).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", state.join(FILES[0])).unwrap();
        assert_eq!(Journal::default().open(&state).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn nothing_is_kept_before_it_is_opened() {
        let journal = Journal::default();
        journal.keep(event("early"));
        assert_eq!(journal.after(0), Events::default());
    }
}
