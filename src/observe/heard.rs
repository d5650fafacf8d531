//! From log lines to the [journal](super::journal): what is logged about a volume with one of the events that are kept.
//!
//! Runs in the mounter, on every thread that logs. So the log and `hostmount events` never contradict each other, and whatever the log's level
//! is, the events are kept.

use super::events::KEPT;
use super::journal::Journal;
use api::event::VolumeEvent;
use api::pod::PodName;
use std::fmt::Debug;
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The layer of the log that keeps events.
pub fn heard<S: Subscriber + for<'a> LookupSpan<'a>>(journal: Arc<Journal>) -> impl Layer<S> {
    Heard(journal).with_filter(filter_fn(|metadata| *metadata.level() <= Level::INFO))
}

struct Heard(Arc<Journal>);

/// What a span or a line says of a volume.
#[derive(Debug, Clone, Default)]
struct Words(VolumeEvent);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Heard {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut words = Words::default();
        attributes.record(&mut words);
        span.extensions_mut().insert(words);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let Words(mut said) = words;
        if !KEPT.contains(&said.event.as_str()) {
            return;
        }
        // From the innermost on: what is said there goes before what is said outside.
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let Some(Words(outer)) = extensions.get::<Words>() else { continue };
            if said.target.is_empty() {
                said.target.clone_from(&outer.target);
            }
            said.fstype = said.fstype.or_else(|| outer.fstype.clone());
            said.source = said.source.or_else(|| outer.source.clone());
            said.said = said.said.or_else(|| outer.said.clone());
        }
        if !said.target.is_empty() {
            self.0.keep(said);
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        let Self(event) = self;
        match field.name() {
            "event" => value.clone_into(&mut event.event),
            "message" => value.clone_into(&mut event.message),
            "target" => value.clone_into(&mut event.target),
            "fstype" => event.fstype = Some(value.to_owned()),
            "source" => event.source = Some(value.to_owned()),
            "pod" => event.said = value.split_once('/').and_then(|(namespace, name)| PodName::new(namespace, name)),
            _ => {}
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "seconds" {
            self.0.seconds = Some(value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "code" {
            self.0.code = Some(value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Of others none is kept.
        if ["message", "target", "fstype", "source", "pod"].contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::events;
    use tracing::{debug, info, info_span, warn};
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn what_is_logged_of_a_volume_is_kept_whatever_the_level_of_the_log_is() {
        let state = std::env::temp_dir().join(format!("hostmount-heard-{}", std::process::id()));
        std::fs::create_dir_all(&state).unwrap();
        let journal = Arc::new(Journal::default());
        journal.open(&state).unwrap();
        let silent = tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::ERROR);
        let subscriber = tracing_subscriber::registry().with(silent).with(heard(Arc::clone(&journal)));
        tracing::subscriber::with_default(subscriber, || {
            info!(event = events::MOUNTED, "of no volume");
            let (source, pod) = ("host:/x", Some("shop/web-0".to_owned()));
            let _outer = info_span!("volume", target = %"/mnt/a", fstype = "sshfs", source, pod).entered();
            info!(event = events::MOUNTED, seconds = 1.5, "mounted on {}", "the node");
            info!(event = events::HELPER_LINE, helper = "words", "the helper says");
            debug!(event = events::MOUNTED, "too quiet");
            let _inner = info_span!("volume", target = "/mnt/b").entered();
            warn!(event = events::NOT_MOUNTED, code = 32, source = %"/s", "not mounted: why");
        });
        let [mounted, failed] = journal.after(0).events.try_into().unwrap();
        let pod = PodName::new("shop", "web-0");
        let words = |event: &VolumeEvent| (event.event.clone(), event.target.clone(), event.message.clone());
        assert_eq!(words(&mounted), ("volume.mounted".into(), "/mnt/a".into(), "mounted on the node".into()));
        assert_eq!((mounted.fstype.as_deref(), mounted.source.as_deref()), (Some("sshfs"), Some("host:/x")));
        assert_eq!((mounted.said, mounted.seconds, mounted.code), (pod.clone(), Some(1.5), None));
        assert_eq!(words(&failed), ("volume.not-mounted".into(), "/mnt/b".into(), "not mounted: why".into()));
        assert_eq!((failed.source.as_deref(), failed.said, failed.code), (Some("/s"), pod, Some(32)));
        std::fs::remove_dir_all(state).unwrap();
    }
}
