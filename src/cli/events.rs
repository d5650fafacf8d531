//! `hostmount events`: what happened to volumes, the newest last, also to those that are gone.

use super::show::document::Event;
use super::show::events::{Arguments, COLUMNS, row};
use super::show::table::table;
use super::show::terminal::Terminal;
use super::{Complaint, again};
use api::client::Client;
use api::origin::Origin;
use api::shown::shown_lines;

/// Runs `hostmount events`.
pub(super) fn events(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut got = client.events(0)?;
    let mut trouble = None;
    let mut after = 0;
    let mut first = true;
    loop {
        if got.trouble.is_some() && got.trouble != trouble {
            let why = got.trouble.as_deref().map(shown_lines).unwrap_or_default();
            linux::complain!("hostmount: some events may be missing: {why}.");
            trouble.clone_from(&got.trouble);
        }
        after = got.events.last().map_or(after, |last| last.number);
        let mut events: Vec<_> = got.events.iter().map(Event::from).collect();
        events.retain(|event| arguments.filter.wants(event));
        if first || !events.is_empty() {
            linux::standard::put(format_args!("{}", text(arguments, &events, first, Terminal::of_output())));
            // A table of none has a head all the same, for what follows.
            first = false;
        }
        if !arguments.follow {
            return Ok(());
        }
        match again::until_answered(|| client.events(after)) {
            Some(more) => got = more?,
            None => return Ok(()),
        }
    }
}

fn text(arguments: &Arguments, events: &[Event], head: bool, terminal: Terminal) -> String {
    let table = || table(&COLUMNS, &events.iter().map(row).collect::<Vec<_>>(), terminal);
    arguments.text(events, table, head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::event::VolumeEvent;
    use api::pod::{Pod, PodName};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &str) -> Arguments {
        Line::parse_from(["events"].into_iter().chain(words.split_whitespace())).arguments
    }

    fn some() -> [Event; 2] {
        let failed = VolumeEvent {
            number: 1,
            time: 1000,
            event: "volume.not-mounted".into(),
            target: "/mnt/a".into(),
            code: Some(32),
            seconds: Some(2.5),
            message: "not mounted: why\n/mnt/b \u{1b}[2J".into(),
            ..VolumeEvent::default()
        };
        let pod = Pod { uid: "u1".into(), name: PodName::new("shop", "web-0") };
        let dead = VolumeEvent {
            number: 2,
            time: 2000,
            event: "volume.dead".into(),
            target: "/k/pods/u1/v".into(),
            fstype: Some("sshfs".into()),
            source: Some("h:/".into()),
            pods: vec![pod],
            message: "the helper has ended".into(),
            ..VolumeEvent::default()
        };
        [failed, dead].each_ref().map(Event::from)
    }

    #[test]
    fn a_line_for_each_and_words_of_others_make_none() {
        let text = text(&arguments(""), &some(), true, Terminal::default());
        assert_eq!(
            text,
            "\
TIME                  EVENT        NAMESPACE  POD    TYPE   SOURCE  TARGET        TOOK   CODE  MESSAGE
1970-01-01T00:16:40Z  not-mounted  -          -      -      -       /mnt/a        2.50s  32    not mounted: why\\n/mnt/b \\u{1b}[2J
1970-01-01T00:33:20Z  dead         shop       web-0  sshfs  h:/     /k/pods/u1/v  -      -     the helper has ended
"
        );
        let more = super::text(&arguments("--follow"), &some(), false, Terminal::default());
        assert_eq!(more, text.split_once('\n').unwrap().1);
        let lines = super::text(&arguments("--follow --output json"), &some(), false, Terminal::default());
        let [first, second] = lines.lines().collect::<Vec<_>>().try_into().unwrap();
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(json(first)["message"], some()[0].message, "it is exact for programs");
        assert_eq!(json(second)["pods"][0]["name"], "web-0");
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let wants = |words: &str| some().each_ref().map(|event| arguments(words).filter.wants(event));
        assert_eq!(wants(""), [true; 2]);
        assert_eq!(wants("/mnt//a/"), [true, false]);
        assert_eq!(wants("--pod web-0"), [false, true]);
        assert_eq!(wants("-n shop --pod u1"), [false, true]);
        assert_eq!(wants("--event dead,mounted"), [false, true]);
        assert_eq!(wants("--event volume.not-mounted"), [true, false]);
        assert_eq!(wants("--since 1970-01-01T00:20:00Z"), [false, true]);
        assert_eq!(wants("--since 10s"), [false; 2]);
    }
}
