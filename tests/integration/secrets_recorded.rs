//! The secrets that a helper gets, byte by byte: a fake helper writes them down.

use crate::harness::{Test, tests};
use crate::secrets::{Setting, TARGET};
use serde_json::{Value, json};
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_helper_gets_every_byte_and_no_other_process_sees_its_files.quick(),
        the_secrets_of_a_call_that_kubelet_made.quick(),
        secrets_that_do_not_fit_are_errors_that_name_the_key.quick(),
    ]
}

/// A fake helper that writes down its input, and then serves the demo's filesystem.
const RECORDER: &str = "#!/bin/sh
mkdir /tmp/recorded; cd /tmp/recorded
cat >stdin
printenv TOKEN >token
stat -c '%a %u %g %n' /run/hostmount/files /run/hostmount/files/* >modes
cat /run/hostmount/files/blob >blob; cat /run/hostmount/files/conf >conf
grep ' /run/hostmount/files ' /proc/self/mountinfo >mount
touch /run/hostmount/files/more 2>refused
printf '%s\\n' \"$@\" >arguments
exec mount.memfs memory \"$1\"
";

const RECORDED: &str = "[filesystem.recorder]\n\
    command = ['recorder', '{target}', '{options}', '--config={file:conf}']\n\
    environment = { TOKEN = 'a {secret:token} b' }\n\
    stdin = \"{secret:token}{secret:blob}\"\n\
    [filesystem.recorder.files]\n\
    blob = { content = '{secret:blob}', option = 'blob' }\n\
    conf = { content = '{\"blob\": \"{file:blob}\"}' }\n";

fn with_recorder() -> Setting {
    let setting = Setting::new();
    setting.test.container.visit(|| fs::write("/usr/bin/recorder", RECORDER).unwrap());
    setting.test.container.sh_ok("chmod 755 /usr/bin/recorder");
    setting.serve(RECORDED)
}

fn a_helper_gets_every_byte_and_no_other_process_sees_its_files() {
    let setting = with_recorder();
    let blob = b"\0\xff,\"{secret:token}\n".as_slice();
    setting.mount("recorder", "memory", "", &[("token", b"t0ken-1"), ("blob", blob)]).unwrap();
    let recorded = |name: &str| setting.test.container.visit(|| fs::read(format!("/tmp/recorded/{name}")).unwrap());
    let text = |name: &str| String::from_utf8(recorded(name)).unwrap();
    assert_eq!(recorded("stdin"), [b"t0ken-1".as_slice(), blob].concat());
    assert_eq!(recorded("blob"), blob);
    assert_eq!(text("conf"), r#"{"blob": "/run/hostmount/files/blob"}"#);
    assert_eq!(text("token"), "a t0ken-1 b\n");
    let directory = "/run/hostmount/files";
    let user = text("modes").split(' ').nth(1).unwrap().to_owned();
    assert_ne!(user, "0", "they are the helper's own user's");
    let modes = [("700", ""), ("600", "/blob"), ("600", "/conf")]
        .map(|(mode, file)| format!("{mode} {user} {user} {directory}{file}\n"));
    assert_eq!(text("modes"), modes.concat());
    assert!(text("mount").contains("ro,nosuid,nodev,noexec") && text("mount").contains("ramfs"), "{}", text("mount"));
    assert!(text("refused").contains("Read-only file system"));
    let arguments = format!("/run/hostmount/mnt{TARGET}\nblob={directory}/blob\n--config={directory}/conf\n");
    assert_eq!(text("arguments"), arguments);
    for place in [&setting.test.container, &setting.test.node] {
        assert_eq!(place.sh_ok(&format!("ls -A {directory}")), "");
    }
    setting.test.container.sh_ok("rm -r /tmp/recorded");
    setting.assert_hidden("t0ken-1");
}

fn the_secrets_of_a_call_that_kubelet_made() {
    let captured = fs::read_to_string(format!("{}/tests/captured/v1.36.2.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let line = captured.lines().find(|line| line.contains("kubernetes.io/secret/password")).unwrap();
    let call: Value = serde_json::from_str(line).unwrap();
    let mut options: Value = serde_json::from_str(call["argv"][3].as_str().unwrap()).unwrap();
    // As captured, but for the volume's own options.
    let given = options.as_object_mut().unwrap();
    given.remove("volume").unwrap();
    given.extend([("fstype".to_owned(), "pair".into()), ("source".to_owned(), "memory".into())]);
    let setting = Setting::new();
    setting.test.container.visit(|| fs::write("/usr/bin/recorder", RECORDER).unwrap());
    setting.test.container.sh_ok("chmod 755 /usr/bin/recorder");
    let setting = setting.serve(
        "[filesystem.pair]\n\
         command = ['recorder', '{target}', '{options}']\n\
         stdin = '{secret:username}:{secret:password}'",
    );
    setting.call(&options).unwrap();
    assert_eq!(setting.test.container.sh_ok("cat /tmp/recorded/stdin"), "bob:p@ss word\"'");
}

fn secrets_that_do_not_fit_are_errors_that_name_the_key() {
    let setting = with_recorder();
    let fails = |fstype: &str, secrets: &[(&str, &[u8])], words: &str| {
        let message = setting.mount(fstype, "memory", "", secrets).unwrap_err();
        assert!(message.contains(words) && !message.contains("t0ken"), "{words}: {message}");
    };
    fails("recorder", &[("token", b"t0ken-1")], "the volume has no secret 'blob'");
    fails("recorder", &[], "the volume has no secret");
    fails(
        "recorder",
        &[("token", b"t0ken-1"), ("blob", b""), ("other", b"t0ken-2")],
        "the volume has a secret 'other'",
    );
    fails("memfs", &[("token", b"t0ken-1")], "the volume has a secret 'token'");
    fails("recorder", &[("token", b"t0ken\0-1"), ("blob", b"")], "the environment variable TOKEN cannot be set");
    fails("recorder", &[("token", b"t0ken-1"), ("blob", &[b'x'; 70_000])], "for which a pipe has room");
    let broken = json!({ "fstype": "recorder", "source": "memory", "kubernetes.io/secret/token": "dDBrZW4=!" });
    let message = setting.call(&broken).unwrap_err();
    assert_eq!(message, "the volume's secret 'token' cannot be read: it is not valid base64");
    // mount(8) cannot pass secrets.
    let done = setting.test.mount(&["-t", "fuse.recorder", "memory", TARGET]);
    assert!(done.code == Some(1) && done.stderr.contains("the volume has no secret"), "{}", done.stderr);
    assert_ne!(setting.test.container.sh("test -e /tmp/recorded").code, Some(0), "a helper was started");
    assert_eq!(setting.test.node.mount_at(TARGET), None);
    setting.assert_hidden("t0ken");
    // It was not the recorder's fault.
    setting.mount("recorder", "memory", "", &[("token", b"t0ken-1"), ("blob", b"")]).unwrap();
}
