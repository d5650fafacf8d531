//! `hostmount status TARGET`: one volume, also after it was unmounted.

use super::Complaint;
use super::show::detail::{Format, lines};
use super::show::document::Detail;
use super::show::terminal::Terminal;
use super::show::{self, words};
use api::client::Client;
use api::origin::Origin;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where it is or was mounted
    target: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Runs `hostmount status`.
pub(super) fn status(arguments: &Arguments) -> Result<(), Complaint> {
    let volume = Detail::from(&Client::from_environment(Origin::Operator).status(&arguments.target)?);
    let text = match arguments.output {
        Format::Table => lines(&volume, Terminal::of_output(), words::now()),
        Format::Json => show::json(&volume),
        Format::Yaml => show::yaml(&volume),
    };
    linux::standard::put(format_args!("{text}"));
    Ok(())
}
