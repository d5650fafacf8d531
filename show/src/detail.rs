//! One volume in detail, for people.
//!
//! Pure.

use crate::document::{Detail, Process, Time, Volume};
use crate::table::{Colour, painted};
use crate::terminal::Terminal;
use crate::volumes::colour;
use crate::words;
use api::shown::shown;
use api::volume::Options;
use clap::ValueEnum;

/// How many of the helper's lines are shown.
const LINES: usize = 5;
/// How many of the places where it shows.
const PLACES: usize = 10;

/// How one thing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for each thing
    Table,
    /// An object (docs/json.md)
    Json,
    /// The same
    Yaml,
}

/// All that is known of a volume, a line for each thing.
pub fn lines(volume: &Detail, terminal: Terminal, now: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str, colour: Colour| {
        let value = painted(&shown(value), colour, terminal);
        text.push_str(format!("{name:<12}{value}").trim_end());
        text.push('\n');
    };
    for (name, values) in rows(volume, now) {
        let mut name = name;
        for value in values {
            let colour = if name == "State" { colour(&volume.volume.state) } else { Colour::Plain };
            line(name, &value, colour);
            // What has a name already goes below it.
            if name != SAYS {
                name = "";
            }
        }
    }
    text
}

const SAYS: &str = "Helper says";

fn rows(volume: &Detail, now: u64) -> Vec<(&'static str, Vec<String>)> {
    let Detail { volume, ended, lines, places, process, options } = volume;
    let Volume { target, r#type: fstype, source, state, helper, device, since, waiting, hung_since, .. } = volume;
    let time = |Time(time): Time| vec![format!("{} ({} ago)", words::time(time), words::age(now.saturating_sub(time)))];
    let mut rows = vec![
        ("Target", vec![target.clone()]),
        ("Type", vec![fstype.clone()]),
        ("Source", vec![source.clone()]),
        ("State", vec![state.clone()]),
        ("Since", time(*since)),
    ];
    rows.extend(hung_since.map(|since| ("Hung since", time(since))));
    rows.extend(ended.map(|ended| ("Ended", time(ended))));
    let pods = volume.pods.iter().map(|pod| match &pod.name {
        Some(name) => format!("{} ({})", name.path(), pod.uid),
        None => pod.uid.clone(),
    });
    rows.push(("Pods", pods.collect()));
    rows.extend(volume.origin.clone().map(|origin| ("Asked by", vec![origin])));
    rows.push(("Helper", vec![helper.clone()]));
    rows.extend(process.iter().flat_map(|process| of_process(process, now)));
    rows.push(("Device", vec![device.clone()]));
    let more = places.len().saturating_sub(PLACES);
    let more = (more > 0).then(|| format!("and {}", words::count(more, "other place")));
    rows.push(("Shows at", places.iter().take(PLACES).cloned().chain(more).collect()));
    if let Some(Options { asked, given, flags }) = options {
        rows.push(("Asked for", Some(asked.clone()).into_iter().filter(|asked| !asked.is_empty()).collect()));
        rows.push(("Is given", Some(given.clone()).into_iter().filter(|given| !given.is_empty()).collect()));
        rows.push(("Flags", vec![flags.join(",")]));
    }
    rows.extend(waiting.map(|count| ("Waiting", vec![count.to_string()])));
    let happened = [(volume.heals, "heal"), (volume.swaps, "swap"), (volume.hangs, "hang")];
    let happened = happened.map(|(count, thing)| words::count(count.try_into().unwrap_or(usize::MAX), thing));
    rows.push(("So far", vec![happened.join(", ")]));
    rows.extend(volume.note.clone().map(|note| ("Note", vec![note])));
    rows.push((SAYS, lines.iter().skip(lines.len().saturating_sub(LINES)).cloned().collect()));
    rows
}

fn of_process(process: &Process, now: u64) -> Vec<(&'static str, Vec<String>)> {
    let Process { pid, uid, program, package, processes, descriptors, memory, memory_limit, cgroup, started } = process;
    let count = |number: &u64, thing| words::count((*number).try_into().unwrap_or(usize::MAX), thing);
    let processes = if *processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") };
    let descriptors = count(descriptors, "descriptor");
    let since = words::age(now.saturating_sub(started.0));
    let memory = match memory_limit {
        Some(limit) => format!("{} of {}", words::size(*memory), words::size(*limit)),
        None => words::size(*memory),
    };
    vec![
        ("Process", vec![format!("pid {pid}, uid {uid}, for {since}; {processes}, {descriptors}")]),
        ("Program", program.iter().cloned().collect()),
        ("Package", package.iter().cloned().collect()),
        ("Memory", vec![memory]),
        ("Cgroup", cgroup.iter().cloned().collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::origin::Origin;
    use api::pod::{Pod, PodName};
    use api::volume::{HelperProcess, VolumeDetail, VolumeState, VolumeView};

    fn of(view: VolumeView) -> VolumeDetail {
        VolumeDetail::of(view, None, (0..9).map(|number| format!("line {number}")).collect())
    }

    #[test]
    fn a_line_for_each_thing() {
        let pods =
            vec![Pod { uid: "u1".into(), name: PodName::new("shop", "web-0") }, Pod { uid: "u2".into(), name: None }];
        let view = VolumeView {
            pods,
            origin: Some(Origin::Csi),
            waiting: Some(3),
            heals: 1,
            note: Some("do something".into()),
            since: 1000,
            ..VolumeView::example()
        };
        let process = HelperProcess {
            pid: 42,
            uid: 2_000_001,
            program: Some("/usr/bin/bindfs".into()),
            package: Some("bindfs 1.14.7-1".into()),
            processes: 1,
            descriptors: 9,
            memory: 36 << 20,
            memory_limit: Some(1 << 30),
            cgroup: Some("hostmount/mnt-a.0".into()),
            started: 1000,
        };
        let flags = vec!["nosuid".into(), "nodev".into()];
        let options = Options { asked: "ro".into(), given: "ro,allow_other".into(), flags };
        let places = vec!["/mnt/a".into(), "/mnt/b".into()];
        let detail = VolumeDetail { places, process: Some(process), options: Some(options), ..of(view) };
        assert_eq!(
            lines(&(&detail).into(), Terminal::default(), 1192),
            "\
Target      /mnt/a
Type        fuse.bindfs
Source      /s
State       mounted
Since       1970-01-01T00:16:40Z (3m12s ago)
Pods        shop/web-0 (u1)
            u2
Asked by    csi
Helper      bindfs
Process     pid 42, uid 2000001, for 3m12s; 1 process, 9 descriptors
Program     /usr/bin/bindfs
Package     bindfs 1.14.7-1
Memory      36Mi of 1.0Gi
Cgroup      hostmount/mnt-a.0
Device      0:61
Shows at    /mnt/a
            /mnt/b
Asked for   ro
Is given    ro,allow_other
Flags       nosuid,nodev
Waiting     3
So far      1 heal, 0 swaps, 0 hangs
Note        do something
Helper says line 4
Helper says line 5
Helper says line 6
Helper says line 7
Helper says line 8
"
        );
    }

    #[test]
    fn of_one_that_is_over_little_is_known() {
        let view = VolumeView { state: VolumeState::Failed, device: String::new(), ..VolumeView::example() };
        let text = lines(&(&VolumeDetail { ended: Some(8), ..of(view) }).into(), Terminal::default(), 9);
        assert!(text.contains("State       failed\n") && text.contains("Device\n"), "{text}");
        assert!(text.contains("Ended       1970-01-01T00:00:08Z (1s ago)\n") && !text.contains("Process"), "{text}");
    }

    #[test]
    fn the_state_has_a_colour_and_words_of_others_have_none() {
        let view = VolumeView { source: "s\u{1b}[31m".into(), ..VolumeView::example() };
        let text = lines(&(&of(view)).into(), Terminal { width: Some(80), colour: true }, 9);
        assert!(text.contains("State       \u{1b}[32mmounted\u{1b}[0m\n"), "{text}");
        assert!(text.contains("Source      s\\u{1b}[31m\n"), "{text}");
    }
}
