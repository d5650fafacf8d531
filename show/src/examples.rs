//! Examples in a command's help.
//!
//! Pure.

/// A command line, and what it is for.
pub type Example = (&'static str, &'static str);

/// As a help shows them.
pub fn text(examples: &[Example]) -> String {
    let lines = examples.iter().map(|(line, what)| format!("  # {what}\n  {line}"));
    format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"))
}
