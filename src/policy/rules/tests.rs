//! The rules, as tables of what is asked for and what comes of it.

use crate::config::Config;
use crate::policy::plan::tests::request;
use crate::policy::{Plan, authorize};
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use std::path::Path;

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/v/mount";
const OTHERS: [Origin; 3] = [Origin::Kubelet, Origin::FlexVolume, Origin::Csi];

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("config.toml")).unwrap()
}

fn asked(config: &Config, origin: Origin, [fstype, source, options]: [&str; 3]) -> Result<Plan, String> {
    asked_at(config, origin, [fstype, source, options], TARGET)
}

fn asked_at(config: &Config, origin: Origin, words: [&str; 3], target: &str) -> Result<Plan, String> {
    let [fstype, source, options] = words;
    let request = Request { source: source.into(), ..request(fstype, target, options) };
    let plan = Plan::new(config, origin, request).unwrap();
    authorize(origin, &plan, config).map(|()| plan).map_err(|denied| denied.to_string())
}

#[test]
fn what_a_pods_author_may_write() {
    for words in [
        ["glusterfs", "10.0.0.1:vol", "auto_unmount,backup-volfile-servers=10.0.0.1:10.0.0.2,log-level=ERROR,ro"],
        ["glusterfs", "h:v", "log-file=/var/lib/kubelet/plugins/kubernetes.io/glusterfs/gl/pod-glusterfs.log"],
        ["nfs", "[fd00::1]:/with space", "nolock,soft,vers=3,ro"],
        ["cifs", "//h/s", "file_mode=0777,vers=3.0,user=DOM\\me,password=p=w;$d"],
        ["ceph", "192.0.2.30:6789:/", "name=me,secret=AQBcephkey=="],
        ["fuse.sshfs", "me@h:/srv", "port=22,reconnect,ServerAliveInterval=15,idmap=user,UserKnownHostsFile=/dev/null"],
        ["fuse", "sshfs#me@h:/srv", "reconnect,allow_other,_netdev,noatime,x-systemd.automount,comment=x"],
        ["s3fs", "bucket", "url=https://s3.example.org,use_path_request_style,allow_other,umask=0022,uid=5"],
        ["rclone", "s3:bucket", "vfs-cache-mode=writes"],
        ["davfs", "https://h/x", "uid=5"],
        ["moosefs", "h:9421:/x", "mfspassword=a/b"],
    ] {
        for origin in OTHERS {
            assert!(asked(&Config::default(), origin, words).is_ok(), "{origin} {words:?}");
        }
        assert!(asked(&Config::default(), Origin::Operator, words).is_ok(), "{words:?}");
    }
}

/// Each of them gave a pod's author something of the container's or the node's.
#[test]
fn what_a_pods_author_may_not_write() {
    for (words, why) in [
        (["sshfs", "h:/x", "ssh_command=touch /tmp/x"], "runs a program"),
        (["sshfs", "h:/x", "ProxyCommand=touch /tmp/x"], "runs a program"),
        (["sshfs", "h:/x", "proxycommand=x"], "not among those"),
        (["sshfs", "h:/x", "IdentityFile=/etc/key"], "names a file"),
        (["sshfs", "h:/x", "IdentityFil=/etc/key"], "not among those"),
        (["sshfs", "h:/x", "UserKnownHostsFile=/etc/x"], "names a file"),
        (["sshfs", "h:/x", "idmap=file"], "not among those"),
        (["sshfs", "h:/x", "port=22\\,ssh_command=x"], "may be more than one option"),
        (["sshfs", "h:/x", "port=\"22,ssh_command=x\""], "may be more than one option"),
        (["sshfs", "h:/x", "user=\"a,ssh_command=x\""], "may be more than one option"),
        (["glusterfs", "h:v", "user=a --dump-fuse=/x"], "not plain"),
        (["sshfs", "h:/x", "x-a=\"a,ssh_command=x\""], "may be more than one option"),
        (["sshfs", "h:/x", "port=22 -F /x"], "not plain"),
        (["sshfs", "h:/x", " ssh_command=x"], "not among those"),
        (["sshfs", "h:/x", "modules=x"], "loads a library"),
        (["sshfs", "[-oProxyCommand=x]:/x", ""], "a source of type 'sshfs' is"),
        (["fuse", "sshfs#h:/x", "setuid=root"], "another user"),
        (["fuse", "bindfs#/", ""], "container's own files"),
        (["fuse", "perl#x", ""], "does not know"),
        (["fuse.fuse.sshfs", "h:/x", ""], "does not know"),
        (["bindfs", "/", ""], "container's own files"),
        (["fuse.bindfs", "/run/hostmount", "ro"], "container's own files"),
        (["gocryptfs", "/x", "extpass=x"], "container's own files"),
        (["squashfuse", "/x", ""], "container's own files"),
        (["mergerfs", "/etc:/usr", ""], "container's own files"),
        (["fuse-overlayfs", "x", "lowerdir=/etc"], "container's own files"),
        (["gcsfuse", "bucket", ""], "does not know"),
        (["curlftpfs", "h", "ssl_control"], "does not know"),
        (["perl", "x", ""], "does not know"),
        (["s3fs", "b", "passwd_file=/etc/x"], "names a file"),
        (["s3fs", "b", "credlib=x.so"], "loads a library"),
        (["s3fs", "b", "iam_role=auto"], "node's own identity"),
        (["s3fs", "b", "url=/x"], "not plain"),
        (["rclone", ":local:/etc", ""], "a source of type 'rclone' is"),
        (["rclone", "/etc", ""], "a source of type 'rclone' is"),
        (["rclone", "s3:b", "config=/etc/x"], "names a file"),
        (["rclone", "s3:b", "env.RCLONE_SFTP_SSH=x"], "not among those"),
        (["glusterfs", "h:v", "log-level=x --dump-fuse=/x"], "not plain"),
        (["glusterfs", "h:v", "dump-fuse=/x"], "names a file"),
        (["glusterfs", "h:v", "log-file=/var/log/x"], "names a file"),
        (
            ["glusterfs", "h:v", "log-file=/var/lib/kubelet/plugins/kubernetes.io/glusterfs/../../../pki/k"],
            "names a file",
        ),
        (["nfs", "h:/x", "log-file=/var/lib/kubelet/plugins/kubernetes.io/glusterfs/x/y"], "not among those"),
        (["cifs", "//h/s", "credentials=/etc/x"], "names a file"),
        (["cifs", "//h/s", "cruid=0"], "Kerberos"),
        (["ceph", "h:/", "secretfile=/etc/x"], "names a file"),
        (["davfs", "http://h", "conf=/etc/x"], "names a file"),
        (["davfs", "/etc", ""], "a source of type 'davfs' is"),
        (["moosefs", "h:/", "mfscfgfile=/etc/x"], "names a file"),
        (["nfs", "h:/x", "X-mount.idmap=u:0:5:1"], "not among those"),
    ] {
        for origin in OTHERS {
            let denied = asked(&Config::default(), origin, words).unwrap_err();
            assert!(denied.contains(why) && denied.contains("refused by"), "{origin} {words:?}: {denied}");
            // A value may be a secret.
            let values = words[2].split(['=', ',']).filter(|value| value.len() > 9 && !words[2].starts_with(value));
            assert!(values.into_iter().all(|value| !denied.contains(value)), "{denied}");
        }
        // Whoever is root has other ways.
        assert!(asked(&Config::default(), Origin::Operator, words).is_ok(), "{words:?}");
    }
    for target in ["/mnt/x", "/var/lib/kubelet", "/var/lib/kubeletx/y", "/etc"] {
        for origin in OTHERS {
            let denied = asked_at(&Config::default(), origin, ["nfs", "h:/x", ""], target).unwrap_err();
            assert!(denied.contains("not below kubelet's directory"), "{denied}");
        }
    }
}

#[test]
fn labels_are_kubelets_words() {
    let config = Config::default();
    let label = "context=\"system_u:object_r:container_file_t:s0:c1,c2\",ro";
    for origin in [Origin::Kubelet, Origin::Csi, Origin::Operator] {
        assert!(asked(&config, origin, ["nfs", "h:/x", label]).is_ok(), "{origin}");
    }
    assert!(asked(&config, Origin::FlexVolume, ["nfs", "h:/x", label]).is_err());
    let more = "context=\"a,credentials=/etc/x\"";
    assert!(asked(&config, Origin::Kubelet, ["cifs", "//h/s", more]).unwrap_err().contains("more than one option"));
    let opened = self::config("[policy.flexvolume.filesystem.nfs]\noptions = ['context']");
    assert!(asked(&opened, Origin::FlexVolume, ["nfs", "h:/x", label]).is_ok());
}

#[test]
fn what_an_administrator_opens() {
    let config = config(
        "[policy.flexvolume]
        options = ['debug']
        targets = ['/var/lib/kubelet/**', '/mnt/*']
        [policy.flexvolume.filesystem.bindfs]
        sources = ['/srv/**', '/a=RW:/b']
        options = ['map', 'create-with-perms=u*']
        [policy.flexvolume.filesystem.mine]
        sources = ['**']
        options = ['*']
        [policy.flexvolume.filesystem.sshfs]
        sources = ['*@files.example.org:/srv/**']",
    );
    let flex = |words| asked(&config, Origin::FlexVolume, words).map(drop);
    for words in [
        ["bindfs", "/srv/a", "map=1/2,perms=0700,debug"],
        ["bindfs", "/srv/a/b", "create-with-perms=ug"],
        ["bindfs", "/a=RW:/b", ""],
        ["mine", "anything", "a=/etc/x,b"],
        ["sshfs", "me@files.example.org:/srv/x", ""],
    ] {
        assert_eq!(flex(words), Ok(()), "{words:?}");
        assert!(asked(&config, Origin::Kubelet, words).is_err() || words[0] == "sshfs", "{words:?}");
    }
    for (words, why) in [
        (["bindfs", "/etc", ""], "policy.flexvolume.filesystem.bindfs.sources"),
        (["bindfs", "/srv/../etc", ""], "policy.flexvolume.filesystem.bindfs.sources"),
        (["bindfs", "/srv/a:/etc", ""], "policy.flexvolume.filesystem.bindfs.sources"),
        (["bindfs", "/srv/a,modules=x", ""], "policy.flexvolume.filesystem.bindfs.sources"),
        (["bindfs", "/srv/a", "create-with-perms=x"], "not among those"),
        (["bindfs", "/srv/a", "resolve-symlinks"], "leads out of the source"),
        (["mine", "x", "a=\"b,c\""], "more than one option"),
        (["sshfs", "me@other:/srv/x", ""], "policy.flexvolume.filesystem.sshfs.sources"),
        (["sshfs", "[-ox]@files.example.org:/srv/x", ""], "a source of type 'sshfs' is"),
        (["sshfs", "me@files.example.org:/srv/../x", ""], "policy.flexvolume.filesystem.sshfs.sources"),
    ] {
        let denied = flex(words).unwrap_err();
        assert!(denied.contains(why), "{words:?}: {denied}");
    }
    let at = |target| asked_at(&config, Origin::FlexVolume, ["nfs", "h:/x", ""], target).map(drop);
    assert!(at("/mnt/x").is_ok() && at("/mnt/x/y").unwrap_err().contains("policy.flexvolume.targets"));
}

#[test]
fn a_type_with_a_command_has_sources_of_its_own() {
    let command = "[filesystem.ceph]\ncommand = ['x', '{source}', '{target}', '{options}']\n";
    let words = ["ceph", "anything", "name=x"];
    let denied = asked(&config(command), Origin::Kubelet, words).unwrap_err();
    assert!(denied.contains("`[policy.kubelet.filesystem.ceph]` with `sources = [...]`"), "{denied}");
    let opened = format!("{command}[policy.kubelet.filesystem.ceph]\nsources = ['any*']");
    assert!(asked(&config(&opened), Origin::Kubelet, words).is_ok());
    assert!(asked(&config(&opened), Origin::Kubelet, ["ceph", "h:/", ""]).is_err());
}

#[test]
fn what_an_administrator_closes_and_forces() {
    let config = config(
        "[filesystem.s3fs]
        forced_options = 'url=https://own,passwd_file=/etc/key'
        [policy.operator]
        types = ['nfs']
        targets = ['/mnt/**']
        options = ['port']
        forbidden_options = ['exec']
        [policy.kubelet]
        types = ['nfs', 's3fs']
        forbidden_options = ['soft', 'vers=2*']
        forced_options = 'noexec,nolock'
        [policy.kubelet.filesystem.nfs]
        forbidden_options = ['retrans']
        forced_options = 'timeo=7'",
    );
    let kubelet = |words| asked(&config, Origin::Kubelet, words);
    for (words, why) in [
        (["sshfs", "h:/x", ""], "policy.kubelet.types"),
        (["nfs", "h:/x", "soft"], "policy.kubelet.forbidden_options"),
        (["nfs", "h:/x", "vers=2.1"], "policy.kubelet.forbidden_options"),
        (["nfs", "h:/x", "retrans=5"], "policy.kubelet.filesystem.nfs.forbidden_options"),
    ] {
        let denied = kubelet(words).unwrap_err();
        assert!(denied.contains(why), "{words:?}: {denied}");
    }
    // What the administrator forces is not judged, and the caller does not take it back.
    let forced = kubelet(["s3fs", "b", "exec"]).unwrap().request.options.to_string();
    assert_eq!(forced, "exec,url=https://own,passwd_file=/etc/key,noexec,nolock");
    let forced = kubelet(["nfs", "h:/x", "vers=3,timeo=1"]).unwrap();
    assert_eq!(forced.request.options.to_string(), "vers=3,noexec,nolock,timeo=7");
    assert!(forced.grant.flags.contains(rustix::mount::MountFlags::NOEXEC));
    assert_eq!(forced.asked, MountOptions::parse("vers=3,timeo=1").unwrap());
    let operator = |words, target| asked_at(&config, Origin::Operator, words, target).map(drop);
    assert_eq!(operator(["nfs", "h:/x", "ro,port=5"], "/mnt/x"), Ok(()));
    assert!(operator(["bindfs", "/x", ""], "/mnt/x").unwrap_err().contains("policy.operator.types"));
    assert!(operator(["nfs", "h:/x", ""], "/srv").unwrap_err().contains("policy.operator.targets"));
    assert!(operator(["nfs", "h:/x", "exec"], "/mnt/x").unwrap_err().contains("policy.operator.forbidden_options"));
    assert!(operator(["nfs", "h:/x", "debug"], "/mnt/x").unwrap_err().contains("policy.operator.options"));
}

#[test]
fn a_refusal_says_what_to_write() {
    let denied = asked(&Config::default(), Origin::FlexVolume, ["sshfs", "h:/x", "ProxyCommand=x"]).unwrap_err();
    assert_eq!(
        denied,
        "option 'ProxyCommand' is refused by the default policy for flexvolume: it runs a program (type 'sshfs'); to allow it, \
         an administrator writes `options = [\"ProxyCommand\"]` below `[policy.flexvolume.filesystem.sshfs]` in config.toml"
    );
}
