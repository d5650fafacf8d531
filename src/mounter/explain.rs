//! What would become of a request for a mount, with nothing of it done.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::operation::mount;
use super::{Mounter, replies};
use crate::config::Config;
use crate::config::user::{Readable, User};
use crate::helper::account::mounters_home;
use crate::helper::arguments::{arguments, with_words};
use crate::helper::beginning::told_to_speak;
use crate::helper::find;
use crate::helper::namespace::{files_directory, mount_point};
use crate::policy::{NotServed, Plan, is_seen, rules_of, without_secrets};
use api::exit::{Exit, chain};
use api::explained::Explained;
use api::message::Failure;
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use api::volume::Options;
use std::env;
use std::path::Path;

/// Whether a request from `origin` would get as far as to a helper.
pub(super) fn would_mount(mounter: &Mounter, origin: Origin, request: Request) -> Result<(), Failure> {
    let config = mounter.configuration.get();
    let plan = Plan::new(&config, origin, request).map_err(|error| replies::to_mount(error.into()))?;
    if let Some(why) = refused(mounter, &config, origin, &plan) {
        return Err(Failure::new(Exit::Usage, why));
    }
    let Request { fstype, source, .. } = &plan.request;
    match find::helper(fstype, source, &plan.settings) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Exit::MountFailure, chain(&error))),
    }
}

/// Why callers from `origin` may not have what is planned.
fn refused(mounter: &Mounter, config: &Config, origin: Origin, plan: &Plan) -> Option<String> {
    if !config.doors.is_open(origin) {
        return Some(format!("{origin} may not ask at all: its door is closed ([doors] in config.toml)"));
    }
    if !is_seen(origin, &plan.target, &mounter.kubelet_dir) {
        return Some(NotServed::Target { origin }.to_string());
    }
    mount::permit(mounter, config, origin, plan).err().map(|denied| chain(&denied))
}

/// What would become of a request from `origin`. A failure: it makes no sense.
pub(super) fn explain(mounter: &Mounter, origin: Origin, request: Request) -> Result<Explained, Failure> {
    let config = mounter.configuration.get();
    let plan = Plan::new(&config, origin, request).map_err(|error| replies::to_mount(error.into()))?;
    let settings = &plan.settings;
    let files = files_directory(&mounter.state);
    let Called { program, arguments, given, speaks, problem } = command(mounter, &plan, &files);
    let user = match config.user(&plan.request) {
        User::Root => "uid 0".to_owned(),
        User::Own => format!("a uid of its own, one of {}", config.uids),
        User::Number(number) => format!("uid {number}"),
    };
    let (Readable::All(readable) | Readable::WhatIsThere(readable)) = config.readable(&plan.request, &mounters_home());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(Explained {
        refused: refused(mounter, &config, origin, &plan),
        rules: rules_of(origin, &plan, &config),
        program,
        problem,
        arguments,
        user,
        capabilities: settings.capabilities.iter().map(ToString::to_string).collect(),
        environment: settings.handover.environment.keys().cloned().chain(speaks.map(str::to_owned)).collect(),
        files: settings.handover.files.keys().map(|name| text(&files.join(name))).collect(),
        secrets: settings.handover.secrets(),
        readable: readable.iter().map(|path| text(path)).collect(),
        options: Options {
            asked: without_secrets(&plan.asked).to_string(),
            given: without_secrets(&given).to_string(),
            flags: plan.grant.flag_words(),
        },
        memory_limit: settings.memory_limit.map(|limit| limit.bytes()),
        ready_timeout: settings.ready_timeout.as_secs(),
        heal: settings.heal,
    })
}

/// How a program would be called.
#[derive(Default)]
struct Called {
    program: Option<String>,
    arguments: Vec<String>,
    /// The options of the plan, and those that the mounter adds.
    given: MountOptions,
    /// The variable that the mounter adds.
    speaks: Option<&'static str>,
    /// Why it cannot be called.
    problem: Option<String>,
}

fn command(mounter: &Mounter, plan: &Plan, files: &Path) -> Called {
    let mut request = plan.request.clone();
    let cannot =
        |problem: String| Called { problem: Some(problem), given: plan.request.options.clone(), ..Called::default() };
    let program = match find::helper(&request.fstype, &request.source, &plan.settings) {
        Ok(program) => program,
        Err(error) => return cannot(chain(&error)),
    };
    plan.settings.handover.point_to_files(&mut request.options, files);
    request.options = without_secrets(&request.options);
    request.source = plan.source_shown();
    let place = mount_point(&mounter.state, &plan.target);
    let name = program.name();
    let arguments = match arguments(&program.style, &name, &request, &place, files) {
        Ok(arguments) => arguments,
        Err(error) => return cannot(chain(&error)),
    };
    let is_set = |name: &str| plan.settings.handover.environment.contains_key(name) || env::var_os(name).is_some();
    let speaks = told_to_speak(&name, &arguments, is_set);
    let given = with_words(&name, plan.settings.command.is_some(), &plan.request.options);
    let words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
    let arguments = std::iter::once(name.clone()).chain(words).collect();
    Called { program: Some(program.path.to_string_lossy().into_owned()), arguments, given, speaks, problem: None }
}
