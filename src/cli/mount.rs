//! `hostmount mount`: mount(8)'s command line for the operator, and what would become of one.

use super::Complaint;
use super::show::lines::{self, Row};
use super::show::terminal::Terminal;
use super::show::{self, words};
use api::client::Client;
use api::exit::Exit;
use api::explained::{Explained, Rule};
use api::origin::Origin;
use api::request::Request;
use clap::ValueEnum;
use shims::mount8::{self, Invocation};
use std::ffi::OsString;
use std::process::ExitCode;

/// How an explanation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each thing
    Table,
    /// An object (docs/json.md)
    Json,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Say what would be run, as whom, with which options and by which rules, and mount nothing; comes before mount(8)'s
    /// arguments
    #[arg(long)]
    explain: bool,
    /// With --explain: where the request would come from
    #[arg(long, value_name = "ORIGIN", default_value = "operator", value_parser = origin, requires = "explain")]
    from: Origin,
    /// With --explain: how to show it
    #[arg(long, value_enum, default_value = "table", requires = "explain")]
    output: Format,
    /// mount(8)'s arguments: -t TYPE -o OPTIONS SOURCE TARGET
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Where a request comes from, by its name.
pub(super) fn origin(name: &str) -> Result<Origin, String> {
    let names = || Origin::ALL.map(Origin::name).join(", ");
    Origin::ALL.into_iter().find(|origin| origin.name() == name).ok_or_else(|| format!("it is one of {}", names()))
}

/// The request that a command line of mount(8)'s makes, to be asked about and not to be done.
pub(super) fn request(arguments: &[OsString]) -> Result<Request, Complaint> {
    match mount8::invocation(arguments) {
        Invocation::Ours(request) => Ok(request),
        Invocation::Bad(target, error) => Err(Complaint::new(Exit::Usage, format!("{target}: {error}"))),
        Invocation::NodesOwn | Invocation::Faked => Err(Complaint::new(
            Exit::Usage,
            "the mounter is not asked for this: it is for the node's own mount".to_owned(),
        )),
    }
}

/// Runs `hostmount mount`.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    if !arguments.explain {
        return mount8::main(&arguments.arguments, Origin::Operator).into();
    }
    super::end(explain(arguments))
}

fn explain(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let explained = client.explain(arguments.from, request(&arguments.arguments)?)?;
    let text = match arguments.output {
        Format::Table => lines::text(&rows(&explained), Terminal::of_output()),
        Format::Json => show::json(&explained),
    };
    linux::standard::put(format_args!("{text}"));
    match (explained.refused, explained.problem) {
        (Some(why), _) => Err(Complaint::new(Exit::Usage, format!("it would be refused: {why}"))),
        (None, Some(why)) => Err(Complaint::new(Exit::MountFailure, why)),
        (None, None) => Ok(()),
    }
}

fn rows(explained: &Explained) -> Vec<Row> {
    let one = |text: &str| Some(text.to_owned()).into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    let rule = |Rule { about, rule }: &Rule| format!("{about}: {rule}");
    let options = &explained.options;
    let command: Vec<String> = explained.arguments.iter().map(|word| quoted(word)).collect();
    let limit = explained.memory_limit.map(words::size);
    let verdict = if explained.refused.is_some() { "refused" } else { "allowed" };
    vec![
        ("Verdict", vec![verdict.to_owned()]),
        ("Judged by", explained.rules.iter().map(rule).collect()),
        ("Program", explained.program.iter().cloned().collect()),
        ("Called as", one(&command.join(" "))),
        ("Runs as", one(&explained.user)),
        ("Capabilities", explained.capabilities.clone()),
        ("Asked for", one(&options.asked)),
        ("Is given", one(&options.given)),
        ("Flags", one(&options.flags.join(","))),
        ("Secrets", explained.secrets.clone()),
        ("Files", explained.files.clone()),
        ("Environment", explained.environment.clone()),
        ("Reads", explained.readable.clone()),
        ("Memory", limit.into_iter().collect()),
        ("Ready within", vec![format!("{}s", explained.ready_timeout)]),
        ("Healed", vec![if explained.heal { "yes" } else { "no" }.to_owned()]),
    ]
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::volume::Options;

    #[test]
    fn what_would_be_run_can_be_read() {
        let explained = Explained {
            rules: vec![Rule { about: "type".into(), rule: "policy.csi.types".into() }],
            program: Some("/usr/bin/s3fs".into()),
            arguments: ["s3fs", "a b", "/run/x", "-o", "ro,it's"].map(str::to_owned).into(),
            user: "uid 0".into(),
            options: Options { asked: String::new(), given: "ro".into(), flags: vec!["nosuid".into(), "nodev".into()] },
            ready_timeout: 120,
            heal: true,
            ..Explained::default()
        };
        assert_eq!(
            lines::text(&rows(&explained), Terminal::default()),
            "\
Verdict      allowed
Judged by    type: policy.csi.types
Program      /usr/bin/s3fs
Called as    s3fs 'a b' /run/x -o 'ro,it'\\''s'
Runs as      uid 0
Is given     ro
Flags        nosuid,nodev
Ready within 120s
Healed       yes
"
        );
    }
}
