//! The mounter's log, on standard error: JSON lines for machines, plain lines on a terminal, and plain lines with a priority where systemd's
//! journal reads them. Helpers and callers have a word in it, which no terminal may act upon: `kubectl logs` shows them too.
//!
//! The journal's own socket is not used: threads of the mounter log from helpers' mount namespaces, where a helper can make a socket at its path.

use super::heard::heard;
use super::journal::Journal;
use api::shown::shown_json;
use rustix::fs::fstat;
use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What is logged, which may change while the mounter runs.
#[derive(Debug, Clone)]
pub struct Levels(Handle<EnvFilter, Registry>);

impl Levels {
    /// Takes over what the configuration says ([`LogLevels`](crate::config::log_levels::LogLevels)). If it says nothing `HOSTMOUNT_LOG` does
    /// (`debug`, `hostmount::engine=trace`), and it is `info` without that.
    pub fn set(&self, configured: Option<&str>) {
        if let Err(error) = self.0.reload(filter(configured)) {
            warn!("what is logged stays as it is: {error}");
        }
    }
}

fn filter(configured: Option<&str>) -> EnvFilter {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    match configured {
        Some(levels) => builder.parse_lossy(levels),
        None => builder.with_env_var("HOSTMOUNT_LOG").from_env_lossy(),
    }
}

/// Starts logging. What happens to volumes is kept in the journal as well, whatever is logged.
pub fn start(journal: Arc<Journal>) -> Levels {
    let (filter, handle) = reload::Layer::new(filter(None));
    let log = layer().with_writer(|| Lines(io::stderr()));
    let log = if io::stderr().is_terminal() {
        log.compact().with_ansi(false).boxed()
    } else if is_journals(io::stderr(), env::var("JOURNAL_STREAM").ok().as_deref()) {
        log.with_ansi(false).event_format(ForJournal::default()).boxed()
    } else {
        log.json().boxed()
    };
    tracing_subscriber::registry().with(log.with_filter(filter)).with(heard(journal)).init();
    Levels(handle)
}

/// Whether a descriptor leads to systemd's journal: `$JOURNAL_STREAM` says which file that is (systemd.exec(5)).
fn is_journals(descriptor: impl AsFd, stream: Option<&str>) -> bool {
    let file = fstat(descriptor).ok().map(|file| format!("{}:{}", file.st_dev, file.st_ino));
    file.is_some() && file.as_deref() == stream
}

/// Plain lines that begin with their priority, as the journal takes it from a stream (sd-daemon(3)). It adds the time.
struct ForJournal(Format<Compact, ()>);

impl Default for ForJournal {
    fn default() -> Self {
        Self(Format::default().compact().without_time())
    }
}

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Takes whole lines, one with each call.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        self.0.write_all(format!("{}\n", shown_json(line)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::{error, info, info_span};

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_word_in_a_line_acts_on_a_terminal() {
        let words = "\u{1b}[2J\u{9b}A\u{7f}\nINFO forged";
        let log = || {
            let _span = info_span!("volume", target = %words).entered();
            info!(helper = words, shown = %words, "{words}");
        };
        let (plain, json) = (Said::default(), Said::default());
        let (to_plain, to_json) = (plain.clone(), json.clone());
        let to = tracing_subscriber::fmt();
        tracing::subscriber::with_default(
            to.compact().with_ansi(false).with_writer(move || Lines(to_plain.clone())).finish(),
            log,
        );
        let to = tracing_subscriber::fmt();
        tracing::subscriber::with_default(to.json().with_writer(move || Lines(to_json.clone())).finish(), log);
        for said in [&plain, &json] {
            let line = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
            assert!(line.trim_end_matches('\n').chars().all(|character| !character.is_control()), "{line:?}");
            assert!(line.contains("INFO forged"), "{line}");
        }
        let line: serde_json::Value = serde_json::from_slice(&json.0.lock().unwrap()).unwrap();
        assert_eq!(line["fields"]["helper"], words, "it is exact for programs");
    }

    #[test]
    fn the_journal_gets_lines_with_priorities() {
        let said = Said::default();
        let to = said.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).event_format(ForJournal::default());
        tracing::subscriber::with_default(subscriber.with_writer(move || Lines(to.clone())).finish(), || {
            let _span = info_span!("volume", target = %"/mnt/a").entered();
            error!(event = "volume.dead", helper = "a\n<0>forged", "the helper has ended");
            info!("more");
        });
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        let [first, second] = text.lines().collect::<Vec<_>>().try_into().unwrap();
        assert!(first.starts_with("<3>") && second.starts_with("<6>"), "{text}");
        for words in ["the helper has ended", "volume.dead", "target=/mnt/a", "a\\n<0>forged"] {
            assert!(first.contains(words), "{words} is not in {text}");
        }
    }

    #[test]
    fn only_the_journals_own_file_is_the_journals() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = fstat(&reader).unwrap();
        assert!(is_journals(&reader, Some(&format!("{}:{}", file.st_dev, file.st_ino))));
        assert!(!is_journals(&reader, Some(&format!("{}:{}", file.st_dev, file.st_ino + 1))));
        assert!(!is_journals(&reader, None) && !is_journals(&reader, Some("")));
    }
}
