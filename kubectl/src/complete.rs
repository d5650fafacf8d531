//! What kubectl asks when it completes `kubectl hostmount …`: a program of this name in the PATH, which may be a link to this one.
//!
//! Pure. It is called with the words so far, and prints what the last of them may become, a line each, and then what a shell shall do if that
//! is not enough (cobra's directives: <https://github.com/kubernetes/kubernetes/pull/105867>).

use clap::Command;
use std::ffi::OsString;

/// By which name kubectl looks for it.
pub(crate) const NAME: &str = "kubectl_complete-hostmount";

/// Names of files are no help.
const NO_FILES: &str = ":4\n";

/// The answer to these words.
pub(crate) fn answer(command: &mut Command, words: &[OsString]) -> String {
    command.build();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let Some((last, before)) = words.split_last() else { return NO_FILES.to_owned() };
    let chosen = before.iter().find_map(|word| command.find_subcommand(word.as_ref()));
    let here = chosen.unwrap_or(command);
    let of_value = before.last().and_then(|word| {
        here.get_arguments().find(|argument| {
            let long = argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
            let short = argument.get_short().is_some_and(|short| **word == format!("-{short}"));
            argument.get_action().takes_values() && (long || short)
        })
    });
    let candidates: Vec<String> = match of_value {
        Some(argument) => argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
        None if last.starts_with('-') => {
            let shown = here.get_arguments().filter(|argument| !argument.is_hide_set());
            shown.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
        }
        None if chosen.is_none() => command.get_subcommands().map(|below| below.get_name().to_owned()).collect(),
        None => Vec::new(),
    };
    let fitting = candidates.into_iter().filter(|candidate| candidate.starts_with(last.as_ref()));
    fitting.map(|candidate| candidate + "\n").collect::<String>() + NO_FILES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_options_and_values() {
        let answer = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            super::answer(&mut crate::command(), &words).replace('\n', " ")
        };
        assert_eq!(answer(&["s"]), "status swap :4 ");
        assert_eq!(answer(&["swap", "--dr"]), "--dry-run :4 ");
        assert_eq!(answer(&["list", "--output", ""]), "table wide json yaml name :4 ");
        assert_eq!(answer(&["list", "-o", "j"]), "json :4 ");
        assert_eq!(answer(&["list", "--cont"]), "--container --context :4 ");
        assert_eq!((answer(&["list", ""]), answer(&[])), (":4 ".into(), ":4 ".into()));
    }
}
