//! Asking the mounter again and again, for what is followed.
//!
//! Runs in the caller's process. A mounter that is restarted meanwhile is waited for.

use super::show::terminal::wait_while_read;
use api::client::CallError;
use api::exit::chain;
use api::shown::shown_lines;

/// How often, in seconds.
const AGAIN: u64 = 1;

/// Asks a little later, until the mounter answers; what it answers may be a failure. None: nobody reads standard output any more.
pub(super) fn until_answered<T>(ask: impl Fn() -> Result<T, CallError>) -> Option<Result<T, CallError>> {
    let mut complained = false;
    while wait_while_read(AGAIN) {
        match ask() {
            Err(error @ (CallError::NotRunning { .. } | CallError::WentAway(_) | CallError::Connection { .. })) => {
                if !complained {
                    linux::complain!("hostmount: {}; it is asked again until it answers.", shown_lines(&chain(&error)));
                    complained = true;
                }
            }
            answered => return Some(answered),
        }
    }
    None
}
