//! `hostmount logs TARGET`: what the helpers of one volume wrote, also after it was unmounted or failed.

use super::show::words;
use super::{Complaint, again};
use api::client::Client;
use api::origin::Origin;
use api::shown::shown;
use api::volume::{Line, Lines};

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where it is, was or should have been mounted
    target: String,
    /// Go on with what is written from now on, until the volume has ended
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since then: 90s, 10m, 2h30m, 3d, or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = words::since)]
    since: Option<u64>,
    /// Show when each line was read
    #[arg(long)]
    timestamps: bool,
}

/// Runs `hostmount logs`.
pub(super) fn logs(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut got = client.logs(&arguments.target, 0)?;
    let mut last = 0;
    loop {
        let Lines { lines, over } = &got;
        let goes_on = arguments.follow && !over;
        // What may still become longer comes when it is whole.
        let whole = lines.iter().filter(|line| line.number > 0 || !goes_on);
        for line in whole.filter(|line| arguments.since.is_none_or(|since| line.time >= since)) {
            linux::say!("{}", arguments.text(line));
        }
        if !goes_on {
            return Ok(());
        }
        last = lines.iter().map(|line| line.number).max().unwrap_or(0).max(last);
        match again::until_answered(|| client.logs(&arguments.target, last)) {
            Some(more) => got = more?,
            None => return Ok(()),
        }
    }
}

impl Arguments {
    fn text(&self, line: &Line) -> String {
        let text = shown(&line.text);
        if self.timestamps { format!("{} {text}", words::time(line.time)) } else { text.into_owned() }
    }
}
