//! `hostmount status TARGET` and `hostmount logs TARGET`: one volume, also after it ended.

use super::call::ask;
use super::list::{Output, fail};
use crate::exit::Exit;
use crate::wire::{Call, Reply, VolumeDetail};
use std::process::ExitCode;

/// How many of the helper's lines belong to a volume's status.
const LINES: usize = 5;

/// Runs `hostmount status`.
pub fn status(target: String, output: Output) -> ExitCode {
    look(target, |volume| match output {
        Output::Table => print!("{}", words(volume)),
        Output::Json => println!("{}", serde_json::to_string_pretty(volume).unwrap_or_default()),
    })
}

/// Runs `hostmount logs`.
pub fn logs(target: String) -> ExitCode {
    look(target, |volume| volume.lines.iter().for_each(|line| println!("{line}")))
}

fn look(target: String, show: impl FnOnce(&VolumeDetail)) -> ExitCode {
    match ask(&Call::Look { target }) {
        Ok(Reply::Volume(volume)) => {
            show(&volume);
            ExitCode::SUCCESS
        }
        Ok(Reply::Failed { exit, message, .. }) => fail(exit, &message),
        Ok(_) => fail(Exit::Internal, "the mounter answered another question"),
        Err(error) => fail(error.exit(), &error.message()),
    }
}

fn words(volume: &VolumeDetail) -> String {
    let VolumeDetail { view, ended, lines } = volume;
    let since = format!("{} (seconds since 1970)", view.since);
    let mut rows = vec![
        ("Target", view.target.as_str()),
        ("Type", &view.fstype),
        ("Source", &view.source),
        ("State", view.state.word()),
        ("Helper", &view.helper),
        ("Device", &view.device),
        ("Since", &since),
    ];
    let numbers = [("Waiting", view.waiting), ("Hung since", view.hung_since), ("Ended", *ended)];
    let numbers = numbers.map(|(name, number)| (name, number.map(|number| number.to_string())));
    rows.extend(numbers.iter().filter_map(|(name, number)| Some((*name, number.as_deref()?))));
    rows.extend(view.note.as_ref().map(|note| ("Note", note.as_str())));
    rows.extend(lines.iter().rev().take(LINES).rev().map(|line| ("Helper says", line.as_str())));
    rows.iter().map(|(name, value)| format!("{name:<12}{value}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{VolumeState, VolumeView};

    #[test]
    fn a_line_for_each_thing() {
        let (target, state, device) = ("/mnt/a".into(), VolumeState::Failed, String::new());
        let view = VolumeView { target, state, device, waiting: Some(3), ..VolumeView::example() };
        let lines = (0..9).map(|number| format!("line {number}")).collect();
        let text = words(&VolumeDetail { view, ended: Some(8), lines });
        assert!(text.starts_with("Target      /mnt/a\n") && text.contains("State       failed\n"), "{text}");
        assert!(
            text.contains("Device\n") && text.contains("Waiting     3\n") && text.contains("Ended       8\n"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "Helper says line 4\nHelper says line 5\nHelper says line 6\nHelper says line 7\nHelper says line 8\n"
            ),
            "{text}"
        );
    }
}
