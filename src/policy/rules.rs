//! What callers from one origin may have of one type: the defaults, and what an administrator has written.
//!
//! Runs in the mounter; pure. The operator, who is root, may have what there is. Kubelet asks for what a pod's author has
//! written, and the CSI server for what a user of an API server has: they may have a [type that is known](super::known_types) with a source
//! elsewhere and options that do nothing but shape the volume, below kubelet's directory. Rules open more, or less.

use super::known_types::{FUSE_OPTIONS, FUSE_REFUSED, KnownType, Source, is_text, is_word};
use crate::config::Config;
use crate::config::policy::{OptionPattern, Pattern, Rules, TypeRules, has_parent};
use api::mount_words::{self, Kind};
use api::options::MountOption;
use api::origin::Origin;
use std::path::Path;

/// For wildcards in sources of the container's: what separates paths there, or is a pattern to the helper.
const SEPARATORS: &str = ":=,*?[]{}\\\"";

/// A request that a rule refuses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is refused by {rule}: {why}{advice}")]
pub struct Refusal {
    what: String,
    rule: String,
    why: String,
    advice: String,
}

/// The rules for one origin and type.
#[derive(Debug, Clone, Copy)]
pub(super) struct RulesFor<'a> {
    pub(super) origin: Origin,
    /// The type's name, without `fuse.`.
    pub(super) name: &'a str,
    pub(super) written: &'a Rules,
    pub(super) of_type: Option<&'a TypeRules>,
    pub(super) known: Option<&'static KnownType>,
    /// Whether the administrator has given it a command: then the administrator says what its sources are, too.
    has_command: bool,
    kubelet_dir: &'a Path,
}

impl<'a> RulesFor<'a> {
    pub(super) fn new(config: &'a Config, origin: Origin, name: &'a str) -> Self {
        let written = config.policy.rules(origin);
        let of_type = written.filesystem.get(name);
        let has_command = config.settings_of(name).command.is_some();
        let (known, kubelet_dir) = (KnownType::named(name), &config.kubelet_dir);
        Self { origin, name, written, of_type, known, has_command, kubelet_dir }
    }

    /// What its sources are, if hostmount knows it.
    pub(super) fn source(&self) -> Option<Source> {
        self.known.filter(|_| !self.has_command).map(|known| known.source)
    }

    /// Whether everything is open that no rule closes.
    fn is_open(&self) -> bool {
        self.origin == Origin::Operator
    }

    fn refusal(&self, what: String, key: &str, default: bool, why: String, line: Option<String>) -> Refusal {
        let origin = self.origin;
        let rule = if default { format!("the default policy for {origin}") } else { format!("policy.{origin}{key}") };
        let advice = line.map(|line| format!("; to allow it, an administrator writes {line} in config.toml"));
        Refusal { what, rule, why, advice: advice.unwrap_or_default() }
    }

    /// A line in this type's section.
    fn in_section(&self, line: &str) -> Option<String> {
        Some(format!("`{line}` below `[policy.{}.filesystem.{}]`", self.origin, self.name))
    }

    pub(super) fn check_type(&self) -> Result<(), Refusal> {
        let (origin, name) = (self.origin, self.name);
        let refused = |default, why: &str| {
            let line = Some(format!("a section `[policy.{origin}.filesystem.{name}]` with `sources = [...]`"));
            Err(self.refusal(format!("type '{name}'"), ".types", default, why.to_owned(), line))
        };
        match &self.written.types {
            _ if self.of_type.is_some() => Ok(()),
            Some(types) if types.iter().any(|listed| listed == name) => Ok(()),
            Some(_) => refused(false, "it is not among them"),
            None if self.is_open() || self.source().is_some() => Ok(()),
            None => refused(true, "hostmount does not know what its sources name and its options do"),
        }
    }

    pub(super) fn check_target(&self, target: &Path) -> Result<(), Refusal> {
        let what = || format!("target {}", target.display());
        match &self.written.targets {
            Some(patterns) => match target.to_str() {
                Some(target) if patterns.iter().any(|pattern| pattern.matches(target, "")) => Ok(()),
                _ => Err(self.refusal(what(), ".targets", false, "it is like none of them".to_owned(), None)),
            },
            None if self.is_open() || target.starts_with(self.kubelet_dir) && target != self.kubelet_dir => Ok(()),
            None => {
                let why = format!("it is not below kubelet's directory, {}", self.kubelet_dir.display());
                let line = Some(format!("`targets = [...]` below `[policy.{}]`", self.origin));
                let mut refusal = self.refusal(what(), ".targets", true, why, line);
                if self.origin == Origin::Kubelet {
                    refusal.advice.push_str("; by hand, `hostmount mount` asks as the operator");
                }
                Err(refusal)
            }
        }
    }

    pub(super) fn check_source(&self, source: &str) -> Result<(), Refusal> {
        let patterns = self.of_type.and_then(|rules| rules.sources.as_ref());
        // What it must look like anyway, as more than that would be an option, or a program.
        let form = self.source().filter(|_| !self.is_open());
        let what = || "the source".to_owned();
        let line = || self.in_section("sources = [...]");
        if let Some(Source::Elsewhere(form, is_source)) = form
            && !is_source(source)
        {
            let why = format!("a source of type '{}' is {form}", self.name);
            return Err(self.refusal(what(), "", true, why, None));
        }
        let in_container = matches!(form, Some(Source::Container));
        let is_known = form.is_some() || self.is_open();
        match patterns {
            Some(patterns) => {
                let never = if in_container { SEPARATORS } else { "" };
                let is_like = |pattern: &Pattern| {
                    pattern.text() == source || pattern.matches(source, never) && !has_parent(source)
                };
                if patterns.iter().any(is_like) {
                    return Ok(());
                }
                let key = format!(".filesystem.{}.sources", self.name);
                Err(self.refusal(what(), &key, false, "it is like none of them".to_owned(), None))
            }
            None if in_container => {
                let why = format!("a source of type '{}' is in the container's own files", self.name);
                Err(self.refusal(what(), "", true, why, line()))
            }
            None if !is_known => {
                let why = format!("hostmount does not know what sources of type '{}' name", self.name);
                Err(self.refusal(what(), "", true, why, line()))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_option(&self, option: &MountOption) -> Result<(), Refusal> {
        let (name, fstype) = (&option.name, self.name);
        let what = || format!("option '{name}'");
        let of_type = || self.of_type.into_iter();
        let forbidden = |patterns: &[OptionPattern]| patterns.iter().any(|pattern| pattern.matches(option));
        if forbidden(&self.written.forbidden_options) {
            return Err(self.refusal(what(), ".forbidden_options", false, "it is among them".to_owned(), None));
        }
        if of_type().any(|rules| forbidden(&rules.forbidden_options)) {
            let key = format!(".filesystem.{fstype}.forbidden_options");
            return Err(self.refusal(what(), &key, false, "it is among them".to_owned(), None));
        }
        if self.is_open() && self.written.options.is_none() {
            return Ok(());
        }
        let kernels = self.known.is_some_and(KnownType::is_the_kernels);
        let value = option.value.as_deref().unwrap_or_default();
        // Programs read lists of options in their own ways: what is one value to us must be one to them.
        if !self.is_open() && !(is_text(value) && (kernels || !value.contains('\\'))) {
            let why =
                "a value with a comma, quote, backslash or control character may be more than one option to the helper";
            return Err(self.refusal(what(), "", true, why.to_owned(), None));
        }
        let listed = self.written.options.iter().flatten().chain(of_type().flat_map(|rules| &rules.options));
        if listed.into_iter().any(|pattern| pattern.matches(option)) {
            return Ok(());
        }
        match self.why_not(option) {
            None => Ok(()),
            Some(why) => {
                let line = self.in_section(&format!("options = [\"{name}\"]"));
                Err(self.refusal(what(), ".options", !self.is_open(), format!("{why} (type '{fstype}')"), line))
            }
        }
    }

    /// Why an option is none that does nothing but shape a volume of this type.
    fn why_not(&self, option: &MountOption) -> Option<&'static str> {
        let name = option.name.as_str();
        let value = option.value.as_deref().unwrap_or_default();
        let not_a_word = "its value names a file, or is not plain";
        let kernels = self.known.is_some_and(KnownType::is_the_kernels);
        match generic(option) {
            // Some helpers are scripts, which take a value apart.
            Some(Generic::Word) => return (!is_word(value) && !kernels).then_some(not_a_word),
            Some(Generic::Comment) => return None,
            None => {}
        }
        let Some(known) = self.known else { return Some("it is not known") };
        if known.exactly.contains(&(name, value)) || name == "log-file" && self.is_kubelets_log(value) {
            return None;
        }
        let refused = known.refused.iter().chain(FUSE_REFUSED.iter().filter(|_| !known.is_the_kernels()));
        if let Some((_, why)) = refused.into_iter().find(|(refused, _)| *refused == name) {
            return Some(why);
        }
        let fuse = || !known.is_the_kernels() && FUSE_OPTIONS.contains(&name);
        if known.words.contains(&name) || fuse() {
            return (!is_word(value)).then_some(not_a_word);
        }
        if known.texts.contains(&name) {
            return None;
        }
        Some("it is not among those that do nothing but shape the volume")
    }

    /// What kubelet gives for GlusterFS, which has a rule of its own (`node::log_file`).
    fn is_kubelets_log(&self, path: &str) -> bool {
        let directory = self.kubelet_dir.join("plugins/kubernetes.io/glusterfs");
        self.known.is_some_and(|known| known.names[0] == "glusterfs")
            && Path::new(path).starts_with(directory)
            && is_word(path.trim_start_matches('/'))
    }
}

/// What an option is that every type has.
enum Generic {
    /// A word of mount(8)'s.
    Word,
    /// No helper gets it.
    Comment,
}

fn generic(option: &MountOption) -> Option<Generic> {
    let name = option.name.as_str();
    let others = name.strip_prefix("x-").or_else(|| name.strip_prefix("X-"));
    if name == "comment" || others.is_some_and(|rest| !rest.starts_with("mount")) {
        return Some(Generic::Comment);
    }
    let (known, _) = mount_words::find_option(option)?;
    (known.kind != Kind::Existing).then_some(Generic::Word)
}

#[cfg(test)]
mod tests {
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
            [
                "fuse.sshfs",
                "me@h:/srv",
                "port=22,reconnect,ServerAliveInterval=15,idmap=user,UserKnownHostsFile=/dev/null",
            ],
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
}
