//! The mounter's log, on standard error: JSON lines for machines, or plain lines on a terminal. Helpers and callers have a
//! word in it, which no terminal may act upon: `kubectl logs` shows them too.

use super::heard::heard;
use super::journal::Journal;
use api::shown::shown_json;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logging. `HOSTMOUNT_LOG` sets the level (`debug`, `hostmount::engine=trace`); `info` without it. What happens to volumes is kept in
/// the journal as well.
pub fn start(journal: Arc<Journal>) {
    let filter = EnvFilter::builder()
        .with_env_var("HOSTMOUNT_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let log = layer().with_writer(|| Lines(io::stderr()));
    let log = if io::stderr().is_terminal() { log.compact().with_ansi(false).boxed() } else { log.json().boxed() };
    tracing_subscriber::registry().with(log.with_filter(filter)).with(heard(journal)).init();
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
    use tracing::{info, info_span};

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
}
