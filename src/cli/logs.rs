//! `hostmount logs TARGET`: what the helpers of one volume wrote, also after it was unmounted or failed.

use super::show::logs::Arguments;
use super::{Complaint, again};
use api::client::Client;
use api::origin::Origin;
use api::volume::Lines;

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
        for line in whole.filter(|line| arguments.wants(line.time)) {
            linux::say!("{}", arguments.line(line.time, &line.text));
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
