//! A FlexVolume volume's options: JSON, whose values the author of a volume chooses.

use api::message::{Call, Mount, receive, send};
use api::mount_words::in_force;
use api::origin::Origin;
use hostmount::config::Config;
use hostmount::policy::{Plan, authorize};
use rustix::mount::MountFlags;
use serde_json::{Map, Value};
use shims::flexvolume::request;

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/hostmount~fuse/v";

/// The argument that kubelet passes.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let given = serde_json::from_str::<Map<String, Value>>(text);
    let request = match request(TARGET, text) {
        Ok(request) => request,
        Err(error) => {
            let words = api::exit::chain(&error);
            let mut values = given.iter().flatten().filter(|(key, _)| key.starts_with("kubernetes.io/secret/"));
            // Shorter ones may stand in the words by chance.
            let quoted =
                values.find_map(|(_, value)| value.as_str().filter(|text| text.len() > 24 && words.contains(*text)));
            assert!(quoted.is_none() || text.matches(quoted.unwrap_or_default()).count() > 1, "{words}");
            return;
        }
    };
    let given = given.expect("a request is made of an object");
    assert_eq!(request.target, TARGET);
    super::options::comes_back(&request.options);
    let secrets = given.keys().filter(|key| key.starts_with("kubernetes.io/secret/")).count();
    assert_eq!(request.secrets.len(), secrets, "each secret arrives");
    let read_only = given.get("kubernetes.io/readwrite").is_some_and(|value| value == "ro");
    assert!(!read_only || in_force(&request.options).contains("ro"), "{}", request.options);

    let mut written = Vec::new();
    send(&mut written, &Call::Mount(Mount::from(request.clone()))).expect("it is short");
    let Ok(Call::Mount(arrived)) = receive::<Call>(&mut written.as_slice()) else {
        panic!("{request:?} does not arrive")
    };
    assert_eq!(arrived.request, request);

    let config = Config::default();
    let Ok(plan) = Plan::new(&config, Origin::FlexVolume, request) else { return };
    assert_eq!(plan.target.to_str(), Some(TARGET));
    assert!(plan.grant.flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
    assert!(!read_only || plan.grant.flags.contains(MountFlags::RDONLY));
    if authorize(Origin::FlexVolume, &plan, &config).is_ok() {
        let (name, source) = plan.request.filesystem();
        assert!(!name.contains('/') && !source.starts_with(['-', '/', '.']), "{plan:?}");
        assert!(!plan.request.options.has_flag("suid") && !plan.request.options.has_flag("dev"), "{plan:?}");
        // However it is spelt: as a name of its own, or as a value that a helper takes apart.
        let written = plan.request.options.to_string().to_lowercase();
        for word in ["proxycommand", "ssh_command", "identityfile", "passwd_file", "volfile=", "conf="] {
            assert!(!written.split(',').any(|option| option.trim_start().starts_with(word)), "{written}");
        }
    }
}
