//! `kubectl hostmount logs TARGET`: what the helpers of the volume at one target wrote, on each node, by its time.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::Trouble;
use crate::cluster::{Mounter, Where};
use crate::follow::{Followed, follow};
use crate::status::that_know;
use api::exit::Exit;
use api::shown::shown;
use show::logs::Arguments;
use show::words;

/// A line, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    time: u64,
    text: String,
}

impl Line {
    /// Of `hostmount logs --timestamps`.
    fn parse(line: &str) -> Option<Self> {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        // How long ago something was is no time of a line.
        let time = Some(time).filter(|time| time.ends_with('Z')).and_then(|time| words::since(time).ok())?;
        Some(Self { time, text: text.to_owned() })
    }
}

/// Runs `kubectl hostmount logs`.
pub(crate) fn logs(place: &Where, arguments: &Arguments) -> Outcome {
    let Arguments { target, .. } = arguments;
    let ask = |mounter: &Mounter| {
        let (text, done) = place.text(mounter, &["logs", "--timestamps", "--", target])?;
        if done.code != Some(0) {
            return Err(Trouble::of(done));
        }
        let text = String::from_utf8_lossy(&text);
        let parse = |line| Line::parse(line).ok_or_else(|| Trouble::Nonsense("a line without a time".to_owned()));
        text.lines().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let answers = that_know(target, place.each(place.mounters()?, ask))?;
    let mut lines: Vec<_> =
        answers.of.iter().flat_map(|(mounter, lines)| lines.iter().map(move |line| (mounter, line))).collect();
    // Those of one node stay in their order.
    lines.sort_by_key(|(_, line)| line.time);
    for (mounter, line) in lines.iter().filter(|(_, line)| arguments.wants(line.time)) {
        print(arguments, mounter, line);
    }
    if !arguments.follow {
        return Ok(answers.code());
    }
    let mut seen: Vec<_> = answers.of.iter().map(|(mounter, lines)| (mounter.clone(), newest(lines))).collect();
    let followed = seen.iter().map(|(mounter, newest)| followed(mounter, newest, target)).collect();
    let well = follow(place, followed, |mounter, line| match Line::parse(line) {
        None => {}
        Some(line) if is_new(&mut seen, mounter, &line) => print(arguments, mounter, &line),
        Some(_) => {}
    })?;
    Ok(if well { answers.code() } else { Exit::System.into() })
}

fn print(arguments: &Arguments, mounter: &Mounter, Line { time, text }: &Line) {
    linux::say!("{}  {}", shown(&mounter.node), arguments.line(*time, text));
}

/// The lines of the last second: they come again when it is followed from there.
fn newest(lines: &[Line]) -> Vec<Line> {
    let last = lines.iter().map(|line| line.time).max().unwrap_or(0);
    lines.iter().filter(|line| line.time == last).cloned().collect()
}

fn followed(mounter: &Mounter, newest: &[Line], target: &str) -> Followed {
    let since = newest.first().map(|line| ["--since".to_owned(), words::time(line.time)]);
    let words = ["logs", "--timestamps", "--follow"].map(str::to_owned).into_iter().chain(since.into_iter().flatten());
    (mounter.clone(), words.chain(["--".to_owned(), target.to_owned()]).collect())
}

fn is_new(seen: &mut [(Mounter, Vec<Line>)], mounter: &Mounter, line: &Line) -> bool {
    let Some((_, seen)) = seen.iter_mut().find(|(one, _)| one == mounter) else { return true };
    let known = seen.iter().position(|known| known == line);
    known.map(|at| seen.remove(at)).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_times_and_come_once() {
        let line = |text: &str| Line::parse(text).unwrap();
        let (first, second) = (line("1970-01-01T00:00:07Z told a"), line("1970-01-01T00:00:08Z"));
        assert_eq!((first.time, first.text.as_str(), second.time, second.text.as_str()), (7, "told a", 8, ""));
        for wrong in ["", "told", "10m words", "yesterdayZ x"] {
            assert_eq!(Line::parse(wrong), None, "{wrong}");
        }
        let mounter = Mounter { node: "a".into(), pod: "pod/p".into(), down: None };
        let again = line("1970-01-01T00:00:08Z x");
        let last = newest(&[first, again.clone(), again.clone()]);
        let (_, words) = followed(&mounter, &last, "/mnt/a");
        assert_eq!(words.join(" "), "logs --timestamps --follow --since 1970-01-01T00:00:08Z -- /mnt/a");
        let mut seen = [(mounter.clone(), last)];
        let news = [&again, &again, &again].map(|line| is_new(&mut seen, &mounter, line));
        assert_eq!(news, [false, false, true]);
        assert_eq!(followed(&mounter, &[], "/a").1.join(" "), "logs --timestamps --follow -- /a");
    }
}
