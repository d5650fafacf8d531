//! `hostmount doctor`: tries what mounting needs, looks at what is around it, and says what to do about each fault.
//!
//! Runs in the container, beside the mounter and like it: uid 0, privileged. It mounts in a mount namespace of a
//! thread's own; on the node it changes nothing. `--probe` runs anywhere and only asks the mounter.

mod container;
mod finding;
mod helpers;
mod kernel;
mod mounter;
mod node;
mod support;

use super::show;
use super::show::terminal::Terminal;
use crate::config::Config;
use api::client::{Client, host_proc};
use api::exit::Exit;
use api::origin::Origin;
use clap::ValueEnum;
use finding::{Found, Level};
use linux::mount_namespace::MountNamespace;
use node::Kubelet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each, and below it what to do
    Table,
    /// An array of objects (docs/json.md)
    Json,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print nothing, and try only whether the mounter answers: for a pod's probe
    #[arg(long)]
    probe: bool,
    /// How to show the findings
    #[arg(short, long, value_enum, default_value = "table", conflicts_with = "probe")]
    output: Format,
    /// Write all that a report needs into this file (tar; `-` is standard output), without secrets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["probe", "output"])]
    support: Option<PathBuf>,
    /// Configuration file [default: as for `serve`]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Directory of the mounter's state
    #[arg(long, default_value = "/run/hostmount")]
    state: PathBuf,
    /// The node's proc filesystem [default: $HOSTPROCPATH/proc]
    #[arg(long)]
    host_proc: Option<PathBuf>,
}

/// Runs `hostmount doctor`. It succeeds when volumes could be mounted.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let client = Client::from_environment(Origin::Operator);
    if arguments.probe {
        return if client.list().is_ok() { ExitCode::SUCCESS } else { Exit::MountFailure.into() };
    }
    let host_proc = arguments.host_proc.clone().unwrap_or_else(host_proc);
    let config = arguments.config.as_deref();
    let findings = look(&client, config, &arguments.state, &host_proc);
    if let Some(file) = &arguments.support {
        let path = config.unwrap_or(Path::new(crate::config::DEFAULT_PATH));
        return super::end(support::write(file, &client, &findings, path, &host_proc));
    }
    let terminal = Terminal::of_output();
    let text = match arguments.output {
        Format::Table => findings.iter().map(|found| found.text(terminal)).collect(),
        Format::Json => show::json(&findings),
    };
    linux::standard::put(format_args!("{text}"));
    if findings.iter().any(|found| found.level == Level::Failure) { Exit::System.into() } else { ExitCode::SUCCESS }
}

fn look(client: &Client, config: Option<&Path>, state: &Path, host_proc: &Path) -> Vec<Found> {
    let loaded = Config::load(config);
    let valid = loaded.as_ref().map(|_| "is valid".to_owned()).map_err(|error| api::exit::chain(error).into());
    let mut findings = vec![Found::needed("configuration", "correct the file", valid)];
    let config = loaded.as_ref().ok();
    let or_default = config.cloned().unwrap_or_default();
    findings.extend(container::needed(state, host_proc));
    findings.push(Found::needed("types", "add FUSE programs to the container's image", helpers::types(&or_default)));
    findings.extend(container::walls(host_proc, config));
    // This container's own first process shows no node.
    let node = MountNamespace::of_node(host_proc).ok().filter(|node| node.is_callers().is_ok_and(|is| !is));
    let node = node.as_ref();
    findings.extend([kernel::features(), kernel::selinux(node)]);
    let kubelet = node.and_then(|node| Kubelet::find(host_proc, node));
    let table = node::table(host_proc);
    let running = mounter::ask(client);
    let volumes = running.as_ref().map(|(_, volumes)| volumes.as_slice()).unwrap_or_default();
    let driver = running.as_ref().ok().and_then(|(about, _)| about.plugins.as_deref()).map(Path::new);
    findings.extend([
        node::kubelet(kubelet.as_ref(), node, &or_default, driver),
        node::propagation(&table, &or_default.kubelet_dir),
        mounter::answers(&running),
    ]);
    // Without a mounter each volume is nobody's.
    if running.is_ok() {
        findings.push(node::orphans(&table, node, volumes, &or_default.kubelet_dir));
    }
    findings.extend(mounter::version(&running));
    findings.extend(mounter::in_force(&running));
    findings.extend(mounter::sockets(&running));
    findings.extend(mounter::programs(&running, node, &or_default));
    findings.extend(mounter::csi(&running, node, &or_default.kubelet_dir));
    findings
}
