//! `hostmount status TARGET` and `hostmount logs TARGET`: one volume, also after it was unmounted.

use super::Complaint;
use super::list::Format;
use api::client::Client;
use api::origin::Origin;
use api::shown::shown;
use api::volume::VolumeDetail;

/// How many of the helper's lines a volume's status shows.
const LINES: usize = 5;

/// Runs `hostmount status`.
pub(super) fn status(target: &str, format: Format) -> Result<(), Complaint> {
    let volume = Client::from_environment(Origin::Operator).status(target)?;
    match format {
        Format::Table => linux::standard::put(format_args!("{}", words(&volume))),
        Format::Json => linux::say!("{}", serde_json::to_string_pretty(&volume).unwrap_or_default()),
    }
    Ok(())
}

/// Runs `hostmount logs`.
pub(super) fn logs(target: &str) -> Result<(), Complaint> {
    let volume = Client::from_environment(Origin::Operator).status(target)?;
    volume.lines.iter().for_each(|line| linux::say!("{}", shown(line)));
    Ok(())
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
    rows.iter().map(|(name, value)| format!("{name:<12}{}", shown(value)).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::volume::{VolumeState, VolumeView};

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
