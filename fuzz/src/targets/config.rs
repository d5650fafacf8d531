//! The administrator's configuration: no one's weapon, but what is accepted must be what the mounter can keep to.

use api::options::MountOptions;
use api::origin::Origin;
use api::request::{Request, Switches};
use caps::Capability;
use hostmount::config::Config;
use hostmount::config::settings::Settings;
use hostmount::policy::Plan;
use rustix::mount::MountFlags;
use std::path::{Component, Path};

/// Types that the seeds have sections for.
const TYPES: [&str; 4] = ["x", "s3fs", "mine", "none"];

/// A whole file.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::parse(text, Path::new("config.toml")) else { return };
    assert!(config.kubelet_dir.is_absolute());
    assert!(config.shortest_hang_time().is_none_or(|time| !time.is_zero()));
    let with_command: Vec<&str> = config.types_with_command().collect();
    for name in TYPES.iter().copied().chain(with_command) {
        check_settings(&config, config.settings_of(name));
        let request = Request {
            fstype: format!("fuse.{name}"),
            source: "source".into(),
            target: "/target".into(),
            options: MountOptions::parse("uid=5,rw,url=theirs,allow_other").expect("options"),
            switches: Switches::default(),
            secrets: Default::default(),
        };
        assert_eq!(&config.settings(&request), config.settings_of(name), "a type has one set of settings");
        if let Ok(plan) = Plan::new(&config, Origin::Operator, request) {
            assert!(plan.grant.flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
            forced_options_win(&plan);
        }
    }
}

fn check_settings(config: &Config, settings: &Settings) {
    assert!(!settings.ready_timeout.is_zero());
    assert!(settings.hang_time.is_none_or(|time| !time.is_zero()));
    for never in
        [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_SYS_MODULE, Capability::CAP_SYS_PTRACE]
    {
        assert!(!settings.capabilities.contains(&never), "{never}");
    }
    for path in &settings.writable {
        let parent = path.components().any(|part| part == Component::ParentDir);
        assert!(path.is_absolute() && path != Path::new("/") && !parent, "{path:?}");
    }
    assert!(settings.memory_limit.is_none_or(|limit| limit.bytes() >= 1 << 20 && config.limits_memory()));
    if let Some(command) = &settings.command {
        assert!(!command.program().is_empty() && !command.program().contains(['{', '\0']));
        let options = MountOptions::parse("a,b=c").expect("options");
        let arguments = command.arguments("{target}", Path::new("/at"), &options, Path::new("/files"));
        assert!(arguments.iter().any(|argument| argument.to_str().is_some_and(|text| text.contains("/at"))));
        let takes = arguments.iter().any(|argument| argument.to_str().is_some_and(|text| text.contains("a,b=c")));
        assert!(takes || !command.takes_options(), "{arguments:?}");
    }
    if let Ok(handover) = settings.handover.hand_over(&Default::default(), Path::new("/files")) {
        for (name, value) in &handover.environment {
            assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains(&0), "{name:?}");
        }
        // Each is one file in the helper's own directory.
        for (name, _) in &handover.files {
            let mut parts = Path::new(name).components();
            assert!(matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none(), "{name:?}");
        }
    }
}

/// The options that the administrator forces are the last of their names, and the only ones.
fn forced_options_win(plan: &Plan) {
    let forced = &plan.settings.forced_options;
    for option in forced.iter() {
        let theirs = plan.request.options.iter().filter(|found| found.name == option.name).count();
        assert_eq!(theirs, forced.iter().filter(|found| found.name == option.name).count(), "{option}");
    }
    super::options::comes_back(&plan.request.options);
}
