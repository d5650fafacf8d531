//! A failure as a pod's events show it: what kubelet is answered by the FlexVolume driver and by the CSI driver.
//!
//! Pure. The beginning is read first and what shows it may cut the rest: so what failed and why comes first, and then what the helper said, of which
//! the end says more than the beginning. All of it has a bound: gRPC has it in a header.

use crate::message::Failure;
use crate::shown::shown_lines;

/// How many bytes of a message are shown, and how many of what a helper said.
const MESSAGE: usize = 2048;
const SAID: usize = 2048;

impl Failure {
    /// What failed and why, and then the helper's lines, with `between` them.
    pub fn in_an_event(&self, between: &str) -> String {
        let mut words = shown_lines(&self.message).into_owned();
        if let Some((at, _)) = words.char_indices().find(|(at, _)| *at >= MESSAGE) {
            words.truncate(at);
            words.push('…');
        }
        let lines: Vec<_> = self.output.iter().map(|line| shown_lines(line)).collect();
        let said = lines.join(between);
        if said.is_empty() {
            return words;
        }
        words.push_str(if between == "\n" { between } else { ": " });
        match said.char_indices().map(|(at, _)| at).find(|at| said.len() - at <= SAID) {
            Some(0) | None => words.push_str(&said),
            Some(at) => {
                words.push('…');
                words.push_str(&said[at..]);
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use proptest::prelude::*;

    #[test]
    fn what_failed_comes_first_and_the_helpers_words_after_it() {
        let mut failure = Failure::new(Exit::MountFailure, "s3fs could not mount b: refused");
        assert_eq!(failure.in_an_event("; "), "s3fs could not mount b: refused");
        failure.output = vec!["one\u{1b}".into(), "two".into()];
        assert_eq!(failure.in_an_event("; "), "s3fs could not mount b: refused: one\\u{1b}; two");
        assert_eq!(failure.in_an_event("\n"), "s3fs could not mount b: refused\none\\u{1b}\ntwo");
    }

    proptest! {
        #[test]
        fn it_has_a_bound_and_its_ends_are_kept(message in "[aé]{0,3000}", lines in prop::collection::vec("[bü\n]{0,900}", 0..9)) {
            let output: Vec<String> = lines.into_iter().chain([" the end".to_owned()]).collect();
            let words = Failure { output, ..Failure::new(Exit::MountFailure, message.clone()) }.in_an_event("; ");
            prop_assert!(words.len() <= MESSAGE + SAID + 12, "{}", words.len());
            prop_assert!(words.ends_with(" the end"));
            let begin: String = message.chars().take(1000).collect();
            prop_assert!(words.starts_with(&begin));
        }
    }
}
