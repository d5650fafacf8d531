//! Examples of each command, for its help and its manual page.
//!
//! Pure. A test holds that each command has some, and that each is a command line.

pub(super) use show::examples::{Example, text};

/// The examples of a command, by the words that follow `hostmount`.
pub(super) fn of(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| *examples)
}

const EXAMPLES: [(&str, &[Example]); 20] = [
    (
        "",
        &[
            ("hostmount list", "the volumes on this node"),
            ("hostmount events --since 1h", "what happened to volumes in the last hour"),
            ("hostmount doctor", "what works on this node, and what to do about the rest (in the container)"),
        ],
    ),
    (
        "serve",
        &[
            ("hostmount serve", "with /etc/hostmount/config.toml, if it is there"),
            (
                "hostmount serve --install /var/lib/kubelet/plugins/hostmount/bin --metrics 127.0.0.1:9464",
                "put the programs on the node first, and serve the metrics over HTTP",
            ),
        ],
    ),
    (
        "mount",
        &[
            ("hostmount mount -t fuse.sshfs -o ro me@server:/export /mnt/data", "as with mount(8)"),
            ("hostmount mount --explain -t s3fs bucket /mnt/data", "what would be run, as whom, and by which rule"),
            (
                "hostmount mount --explain --from flexvolume -t s3fs bucket /var/lib/kubelet/pods/UID/volumes/hostmount~fuse/data",
                "whether the author of a pod may have it",
            ),
        ],
    ),
    ("umount", &[("hostmount umount /mnt/data", "as with umount(8)")]),
    ("flexvolume", &[("hostmount flexvolume init", "what kubelet asks first")]),
    (
        "list",
        &[
            ("hostmount list --pod shop/web-0", "the volumes of a pod"),
            ("hostmount list --state dead,hung -o wide", "those that need somebody, with more columns"),
            ("hostmount list -o json", "for a script; docs/json.md"),
            ("hostmount list --watch=5", "again every five seconds"),
        ],
    ),
    (
        "heal",
        &[
            ("hostmount heal /mnt/data", "a fresh helper at once for a volume that is dead, or hangs"),
            ("hostmount heal --all --dry-run", "which volumes would be healed"),
        ],
    ),
    (
        "swap",
        &[
            ("hostmount swap --all --dry-run", "which volumes would get a fresh helper"),
            ("hostmount swap --all", "a few at a time, up to the first that fails"),
            ("hostmount swap /mnt/data -o ro,retries=9", "with other options from now on"),
            ("hostmount swap /mnt/data --secret password=/root/new", "with another secret from now on"),
        ],
    ),
    (
        "status",
        &[
            ("hostmount status /mnt/data", "all that is known of a volume"),
            ("hostmount status /mnt/data -o json", "for a script; docs/json.md"),
        ],
    ),
    (
        "logs",
        &[
            ("hostmount logs /mnt/data", "the last lines that its helper wrote"),
            ("hostmount logs -f --timestamps /mnt/data", "and those that it writes from now on"),
            ("hostmount logs --since 10m /mnt/data", "those of the last ten minutes"),
        ],
    ),
    (
        "events",
        &[
            ("hostmount events --pod shop/web-0", "what happened to a pod's volumes, also if it is gone"),
            ("hostmount events --event dead,hung --since 1d", "what went wrong since yesterday"),
            ("hostmount events --follow -o json", "an object a line, for a script; docs/json.md"),
        ],
    ),
    (
        "top",
        &[
            ("hostmount top", "what helpers use, every two seconds"),
            ("hostmount top --once --sort memory", "one round, the largest first"),
            ("hostmount top -o json", "for a script; docs/json.md"),
        ],
    ),
    ("metrics", &[("hostmount metrics", "what a scraper would get")]),
    ("policy", &[("hostmount policy show", "what callers of each kind may have")]),
    (
        "policy check",
        &[(
            "hostmount policy check --from kubelet mount -t s3fs bucket /var/lib/kubelet/pods/UID/volumes/v",
            "whether kubelet may mount it, and if not, by which rule",
        )],
    ),
    ("policy show", &[("hostmount policy show", "all of it, the defaults among it")]),
    (
        "doctor",
        &[
            ("hostmount doctor", "in the container: what works here"),
            ("hostmount doctor --output json", "for a script; docs/json.md"),
            ("hostmount doctor --support report.tar", "one file to attach to a report, without secrets"),
            ("hostmount doctor --probe", "for a pod's probe: does the mounter answer?"),
        ],
    ),
    (
        "install",
        &[
            (
                "hostmount install --to /opt/hostmount/bin --flexvolume /var/lib/kubelet/volumeplugins",
                "the programs that kubelet runs, and the FlexVolume driver",
            ),
            ("hostmount install --to /opt/hostmount/bin --uninstall", "take them away again"),
        ],
    ),
    (
        "completion",
        &[
            ("hostmount completion bash", "for bash: write it to /etc/bash_completion.d/hostmount"),
            ("hostmount completion zsh", "for zsh: write it to _hostmount, in a directory of $fpath"),
            ("hostmount completion fish", "for fish: write it to ~/.config/fish/completions/hostmount.fish"),
        ],
    ),
    (
        "manual",
        &[
            ("hostmount manual", "the names of all pages"),
            ("hostmount manual hostmount.toml.5", "one page; show it with: man -l -"),
            ("hostmount manual --to /usr/local/share/man", "all of them, where man(1) finds them"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;
    use clap::Command;

    fn names(command: &Command, above: &str) -> Vec<String> {
        let below = command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set())
            .flat_map(|sub| names(sub, &format!("{above} {}", sub.get_name())));
        std::iter::once(above.trim().to_owned()).chain(below).collect()
    }

    #[test]
    fn each_command_has_an_example_and_each_example_is_a_command_line() {
        let all = names(&command(), "");
        assert!(all.iter().any(|name| name == "policy check"), "{all:?}");
        for name in &all {
            let examples = of(name);
            assert!(!examples.is_empty(), "'{name}' has no example");
            for (line, _) in examples {
                let begins = line.strip_prefix("hostmount").unwrap().trim_start().starts_with(name.as_str());
                assert!(begins, "{line} is no example of '{name}'");
                command().try_get_matches_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        for (name, _) in EXAMPLES {
            assert!(all.iter().any(|command| command == name), "there is no '{name}'");
        }
    }

    #[test]
    fn the_help_shows_them() {
        let mut command = command();
        let help = command.find_subcommand_mut("list").unwrap().render_long_help().to_string();
        assert!(help.ends_with(&format!("{}\n", text(of("list")))), "{help}");
    }
}
