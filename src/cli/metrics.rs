//! `hostmount metrics`: the metrics, in the text format of Prometheus.

use super::Complaint;
use api::client::Client;

/// Runs `hostmount metrics`.
pub(super) fn metrics() -> Result<(), Complaint> {
    print!("{}", Client::from_environment().metrics()?);
    Ok(())
}
