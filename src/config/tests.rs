use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("config.toml"))
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(Config::default().settings_of("x").ready_timeout, Duration::from_secs(120));
}

#[test]
fn misspelt_keys_and_impossible_values_are_errors() {
    assert!(parse("ready_timeout = 3").is_err());
    assert!(parse("ready_timeout_seconds = 0").is_err());
    assert!(parse("program_timeout_seconds = 0").is_err());
    assert!(parse("kubelet_dir = 'var/lib'").is_err());
    assert!(Config::load(Some(Path::new("/nonexistent/config.toml"))).is_err());
    for wrong in [
        "mode = 3",
        "capabilities = ['CAP_SYS_ADMIN']",
        "capabilities = ['CAP_FLY']",
        "environment = { 'A=B' = 'c' }",
        "process_limit = 0",
        "descriptor_limit = 63",
        "user = 'nobody'",
        "user = -1",
        "user = 4294967295",
        "user = 1900000001",
        "readable = ['key']",
        "writable = ['tmp']",
        "writable = ['/']",
        "writable = ['/..']",
        "ready_timeout_seconds = 0",
        "default_options = 'context=\"a'",
        "command = ['p']",
        "memory_limit = '512'",
        "memory_limit = '1.5Gi'",
        "memory_limit = '18446744073709551615Gi'",
        "memory_limit = 'Mi'",
    ] {
        assert!(parse(&format!("[filesystem.x]\n{wrong}")).is_err(), "{wrong}");
    }
    assert!(parse("[filesystem.'fuse.x']").is_err() && parse("[helpers]\nprocess_limit = 0").is_err());
    for wrong in ["'5'", "'9-8'", "'0-100'", "'65000-66000'", "'1-4294967295'", "7"] {
        assert!(parse(&format!("[helpers]\nuids = {wrong}")).is_err(), "{wrong}");
    }
    for wrong in [
        "nobody = {}",
        "kubelet = { type = ['x'] }",
        "kubelet = { types = ['fuse.x'] }",
        "kubelet = { targets = ['mnt'] }",
        "kubelet = { filesystem = { 'fuse.x' = {} } }",
        "kubelet = { forced_options = 'a=\"' }",
    ] {
        assert!(parse(&format!("[policy]\n{wrong}")).is_err(), "{wrong}");
    }
    for wrong in [
        "operator = false",
        "csi = true",
        "csi = { socket = '/a' }",
        "csi = { socket = 'a', uid = 5 }",
        "csi = { socket = '/a', uid = 0 }",
    ] {
        assert!(parse(&format!("[doors]\n{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_type_has_one_set_of_settings_however_it_is_spelt() {
    let config = parse("[filesystem.x]\nforeground = true\nready_timeout_seconds = 7").unwrap();
    let foreground = |fstype: &str, source: &str| {
        let (fstype, source, target) = (fstype.into(), source.into(), "/t".into());
        let (options, switches, secrets) = Default::default();
        let request = Request { fstype, source, target, options, switches, secrets };
        let settings = config.settings(&request);
        assert_eq!(settings.ready_timeout.as_secs(), if settings.foreground { 7 } else { 120 });
        settings.foreground
    };
    assert!(foreground("x", "") && foreground("fuse.x", "y") && foreground("fuse", "x#y"));
    assert!(!foreground("y", "x#") && !foreground("fuse", "y#x"));
}

#[test]
fn a_user_is_its_own_unless_its_type_needs_root() {
    let config =
        parse("[filesystem.a]\nuser = 7\n[filesystem.bindfs]\nuser = 'own'\n[filesystem.b]\nuser = 'root'").unwrap();
    let user = |fstype: &str, source: &str| {
        let (fstype, source, target) = (fstype.into(), source.into(), "/t".into());
        let (options, switches, secrets) = Default::default();
        config.user(&Request { fstype, source, target, options, switches, secrets })
    };
    assert_eq!(user("fuse.sshfs", ""), User::Own);
    assert_eq!(user("glusterfs", ""), User::Own);
    assert_eq!((user("nfs4", ""), user("fuse", "mergerfs#/a")), (User::Root, User::Root));
    assert_eq!((user("a", ""), user("fuse", "bindfs#/"), user("b", "")), (User::Number(7), User::Own, User::Root));
}

#[test]
fn memory_limits_are_written_as_kubernetes_does() {
    for (text, bytes) in [("512Mi", 512 << 20), ("2Gi", 2 << 30), ("300M", 300_000_000), ("1048576", 1 << 20)] {
        let config = parse(&format!("[filesystem.x]\nmemory_limit = '{text}'")).unwrap();
        assert_eq!(config.settings_of("x").memory_limit.map(|limit| limit.bytes()), Some(bytes), "{text}");
        assert!(config.limits_memory());
    }
}

#[test]
fn the_example_above_is_valid() {
    let (_, text) = include_str!("../config.rs").split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("//! ```").unwrap();
    let text: String = text.lines().map(|line| line.trim_start_matches("//!").to_owned() + "\n").collect();
    let config = parse(&text).unwrap();
    assert_eq!(config.types_with_command().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(config.doors.csi.unwrap().uid, 65532);
}
