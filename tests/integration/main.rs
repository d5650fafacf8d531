//! Tests of hostmount from outside: on test nodes, with real programs and servers. One program with a module for
//! each subject; `harness` says how a test is listed, and `tests/node` is what tests are made of.
//!
//! Runs as root. `cargo test NAME` runs the tests that have NAME in their module's name or their own.

#[path = "../node/mod.rs"]
mod node;

mod abandoned;
mod all_nodes;
mod bad_luck;
mod bind;
mod bounds;
mod callers;
mod cgroups;
mod chaos;
mod client;
mod closed_pipes;
mod configuration;
mod costs;
mod csi_chart;
mod csi_manifests;
mod deployment;
mod device_numbers;
mod doctor;
mod documentation;
mod doors;
mod filesystems;
mod fusermount3;
mod harness;
mod held;
mod host_users;
mod hostile;
mod hostile_helper;
mod hostile_pods;
mod hostile_restart;
mod hundreds;
mod hung_volumes;
mod idmap;
mod image;
mod install;
mod kubelet;
mod kubelet_config;
mod kubelet_in_container;
mod libfuse;
mod main_job;
mod manual;
mod metrics;
mod monitoring;
mod mount8;
mod mounts_without_end;
mod not_healed;
mod nothing_goes_dark;
mod old_kernels;
mod open_files;
mod open_files_of_all;
mod operator;
mod outlive;
mod own_uid;
mod placeholders;
mod pod_containers;
mod pod_programs;
mod pod_start;
mod pods;
mod pods_and_mounters;
mod pods_with_users;
mod policy;
mod preload;
mod races;
mod read_write_many;
mod releases;
mod restart;
mod secrets;
mod secrets_recorded;
mod server_gone;
mod shim;
mod shown;
mod slim_images;
mod storm;
mod swap;
mod systemd;
mod test_node;
mod user_namespaces;
mod walls;
mod what_happened;
mod why_it_failed;
mod why_mounts_fail;
mod without_mounter;

use std::process::ExitCode;

/// Modules, each with its name and the tests that it lists.
macro_rules! modules {
    ($($module:ident),* $(,)?) => {
        [$((stringify!($module), $module::tests())),*]
    };
}

fn main() -> ExitCode {
    harness::run(modules![
        test_node,
        systemd,
        main_job,
        held,
        open_files,
        open_files_of_all,
        hundreds,
        mount8,
        mounts_without_end,
        configuration,
        bad_luck,
        bounds,
        callers,
        doors,
        policy,
        pods,
        pods_and_mounters,
        pods_with_users,
        pod_containers,
        pod_programs,
        operator,
        closed_pipes,
        costs,
        shim,
        shown,
        slim_images,
        what_happened,
        all_nodes,
        manual,
        documentation,
        doctor,
        client,
        bind,
        metrics,
        monitoring,
        install,
        deployment,
        kubelet_config,
        csi_manifests,
        csi_chart,
        kubelet,
        kubelet_in_container,
        libfuse,
        fusermount3,
        pod_start,
        nothing_goes_dark,
        not_healed,
        swap,
        restart,
        device_numbers,
        hostile,
        hostile_helper,
        hostile_pods,
        hostile_restart,
        races,
        hung_volumes,
        abandoned,
        server_gone,
        chaos,
        storm,
        cgroups,
        user_namespaces,
        walls,
        host_users,
        placeholders,
        idmap,
        secrets,
        secrets_recorded,
        read_write_many,
        filesystems,
        old_kernels,
        preload,
        why_it_failed,
        why_mounts_fail,
        without_mounter,
        releases,
        image,
        outlive,
        own_uid,
    ])
}
