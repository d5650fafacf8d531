//! `kubectl hostmount status TARGET`: the volume at one target, on each node that has it or had it.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Answers, Element, Trouble, sorted_out};
use crate::cluster::{ClusterError, Mounter, Where};
use api::shown::shown;
use show::detail::{Format, lines};
use show::document::Detail;
use show::terminal::Terminal;
use show::words;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where it is or was mounted on the node
    target: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Leaves out the nodes that do not know the target; an error if there is none that does, and all have answered.
pub(crate) fn that_know<T>(
    target: &str,
    mut all: Vec<(Mounter, Result<T, Trouble>)>,
) -> Result<Answers<T>, ClusterError> {
    let asked = all.len();
    all.retain(|(_, answer)| !matches!(answer, Err(Trouble::Unknown(_))));
    if all.is_empty() {
        let nodes = words::count(asked, "node");
        return Err(ClusterError::Nowhere(format!(
            "of {nodes} none has a volume of hostmount's at {target}, or had it a while ago; kubectl hostmount list has all"
        )));
    }
    Ok(sorted_out(all))
}

/// Runs `kubectl hostmount status`.
pub(crate) fn status(place: &Where, arguments: &Arguments) -> Outcome {
    let Arguments { target, output } = arguments;
    let words = ["status", "--output", "json", "--", target];
    let ask = |mounter: &Mounter| {
        let raw = place.json(mounter, &words)?;
        Element::<Detail>::new(&mounter.node, raw)
    };
    let answers = that_know(target, place.each(place.mounters()?, ask))?;
    let documents = || answers.of.iter().map(|(_, element)| element.document()).collect::<Vec<_>>();
    let text = match output {
        Format::Table => {
            let terminal = Terminal::of_output();
            let of = |element: &Element<Detail>| {
                format!("{:<12}{}\n{}", "Node", shown(&element.node), lines(&element.known, terminal, words::now()))
            };
            answers.of.iter().map(|(_, element)| of(element)).collect::<Vec<_>>().join("\n")
        }
        Format::Json => show::json(&documents()),
        Format::Yaml => show::yaml(&documents()),
    };
    linux::standard::put(format_args!("{text}"));
    Ok(answers.code())
}
