//! Examples of each command, for its help.
//!
//! Pure. A test holds that each command has some, and that each is a command line.

use show::examples::Example;

/// The examples of a command.
pub(crate) fn of(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| *examples)
}

const EXAMPLES: [(&str, &[Example]); 11] = [
    (
        "",
        &[
            ("kubectl hostmount list", "the volumes on all nodes"),
            ("kubectl hostmount events --since 1h --node worker-1", "what happened on one in the last hour"),
            ("kubectl hostmount doctor --context staging", "what works on each node of another cluster"),
        ],
    ),
    (
        "list",
        &[
            ("kubectl hostmount list -n shop --pod web-0", "the volumes of a pod, wherever it runs"),
            ("kubectl hostmount list --state dead,hung -o wide", "those that need somebody, with more columns"),
            ("kubectl hostmount list -o json", "for a script; docs/json.md"),
        ],
    ),
    ("status", &[("kubectl hostmount status /mnt/data --node worker-1", "all that is known of the volume there")]),
    (
        "logs",
        &[
            ("kubectl hostmount logs /mnt/data", "what its helpers wrote, on all nodes that have it"),
            ("kubectl hostmount logs -f --since 10m --timestamps /mnt/data", "that of ten minutes, and what follows"),
        ],
    ),
    (
        "events",
        &[
            ("kubectl hostmount events --event dead,hung --since 1d", "what went wrong since yesterday"),
            ("kubectl hostmount events --follow -o json", "an object a line, for a script; docs/json.md"),
        ],
    ),
    ("top", &[("kubectl hostmount top --once --sort memory", "one round, the largest first")]),
    ("doctor", &[("kubectl hostmount doctor", "a line for each node, and what to do about the rest")]),
    (
        "heal",
        &[
            ("kubectl hostmount heal --all --dry-run", "which volumes would be healed"),
            ("kubectl hostmount heal --all", "those that are dead or hang, on one node after the other"),
        ],
    ),
    (
        "swap",
        &[
            ("kubectl hostmount swap --all --dry-run", "which volumes would get a fresh helper"),
            ("kubectl hostmount swap --all --node worker-1,worker-2", "those of two nodes, up to the first that fails"),
        ],
    ),
    (
        "manual",
        &[
            ("kubectl hostmount manual --to /usr/local/share/man", "all pages, for man(1)"),
            ("kubectl hostmount manual kubectl-hostmount-swap", "one of them, as groff reads it"),
        ],
    ),
    (
        "completion",
        &[("kubectl hostmount completion bash", "for bash: write it to /etc/bash_completion.d/kubectl-hostmount")],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_an_example_and_each_example_is_a_command_line() {
        let command = crate::command();
        let names: Vec<_> = command.get_subcommands().map(|below| below.get_name()).chain([""]).collect();
        for name in &names {
            assert!(!of(name).is_empty(), "'{name}' has no example");
            for (line, _) in of(name) {
                let words = line.strip_prefix("kubectl ").unwrap();
                assert!(words.strip_prefix("hostmount").unwrap().trim_start().starts_with(name), "{line}");
                crate::command().try_get_matches_from(words.split(' ')).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        assert!(EXAMPLES.iter().all(|(name, _)| names.contains(name)));
        let mut command = command;
        let help = command.find_subcommand_mut("list").unwrap().render_long_help().to_string();
        assert!(help.contains("kubectl hostmount list -n shop"), "{help}");
    }
}
