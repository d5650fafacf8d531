//! `hostmount policy`: what may be mounted, by the rules of the mounter that runs.

use super::Complaint;
use super::mount::{origin, request};
use api::client::Client;
use api::exit::Exit;
use api::origin::Origin;
use api::shown::{shown, shown_lines};
use clap::Subcommand;
use std::ffi::OsString;

/// The command line of `hostmount policy`.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Say whether a mount would be refused, and by which rule, without mounting; exits with 0 if it would not
    Check {
        /// Where the request would come from
        #[arg(long, value_name = "ORIGIN", default_value = "operator", value_parser = origin)]
        from: Origin,
        /// `mount` and mount(8)'s arguments: mount -t TYPE -o OPTIONS SOURCE TARGET
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Print what is in force, the defaults among it, as TOML
    Show,
}

/// Runs `hostmount policy`.
pub(super) fn policy(action: Action) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let (from, arguments) = match action {
        Action::Show => {
            linux::standard::put(format_args!("{}", shown_lines(&client.policy()?)));
            return Ok(());
        }
        Action::Check { from, arguments } => (from, arguments),
    };
    let usage = |message: String| Complaint::new(Exit::Usage, message);
    let Some(arguments) = arguments.strip_prefix(&[OsString::from("mount")]) else {
        return Err(usage(
            "a check is of a command line: hostmount policy check mount -t TYPE SOURCE TARGET".to_owned(),
        ));
    };
    client.check_policy(from, request(arguments)?)?;
    linux::say!("{} may have it", shown(from.name()));
    Ok(())
}
