//! `hostmount metrics`: the metrics, in the text format of Prometheus.

use super::Complaint;
use api::client::Client;
use api::origin::Origin;

/// Runs `hostmount metrics`.
pub(super) fn metrics() -> Result<(), Complaint> {
    linux::standard::put(format_args!("{}", Client::from_environment(Origin::Operator).metrics()?));
    Ok(())
}
