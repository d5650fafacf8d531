//! A cluster of one node: etcd, Kubernetes' API server, controller manager and scheduler, kubelet, containerd.
//!
//! Runs in the test's process, as root; all of it runs on a machine of its own.

use crate::host::{Host, KUBELET, NODE_ADDRESS, PREPARED, logged, wait};
use crate::node::{Done, Place};
use crate::pod::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use testbed::machine::{Network, Process, Room};

/// The node's name.
pub(crate) const NODE: &str = "node";

const ETCD: &str = "http://127.0.0.1:2379";
const API: &str = "https://127.0.0.1:6443";
/// Its own certificate, and that of the authority that it has made for it.
const CERTIFICATES: &str = "/run/kubernetes";
const API_CERTIFICATES: &str = "/run/kubernetes/apiserver.crt";
const CONFIGURATION: &str = "/etc/kubernetes";

/// Who asks the API server, by a token that is the user's own name.
const USERS: &str = "admin,admin,admin,system:masters\nkubelet,system:node:node,kubelet,system:nodes\n\
                     operator,operator,operator,hostmount-operators\n";

/// A registered node has the driver's start-up taint.
pub(crate) const TAINT: &str = "hostmount.csi/agent-not-ready";

/// What kubelet does here beside what it does without an API server: it asks how volumes are more often than once a minute, and the API
/// server as often as it likes.
const KUBELETS_OWN: &str = "\nvolumeStatsAggPeriod: 3s\nkubeAPIQPS: 200\nkubeAPIBurst: 400\n";

/// Pods get an address, or the node is not ready: a pair of interfaces each.
const POD_NETWORK: &str = r#"{
    "cniVersion": "0.4.0", "name": "pods", "type": "ptp",
    "ipam": { "type": "host-local", "subnet": "10.88.0.0/16", "dataDir": "/run/cni" }
}"#;

/// The cluster. The order of the fields is the order of their end.
pub(crate) struct Cluster {
    kubelet: Mutex<Option<Process>>,
    _control_plane: Vec<Process>,
    /// The node itself.
    pub(crate) node: Place,
    pub(crate) host: Host,
    files: AtomicU32,
}

impl Cluster {
    /// Starts one in `network` with what `prepare` has made in `work`; the logs go there, too.
    pub(crate) fn start(network: &Network, work: &Path) -> Self {
        let host = Host::start(network, work);
        let node = host.place.clone();
        node.sh_ok(&format!(
            "set -e
            mkdir -p {CONFIGURATION}/manifests /run/cni /run/kubernetes /run/etcd
            openssl genrsa -out {CONFIGURATION}/accounts.key 2048 2>&1
            openssl rsa -in {CONFIGURATION}/accounts.key -pubout -out {CONFIGURATION}/accounts.pub 2>&1"
        ));
        node.visit(|| {
            let write = |name: &str, text: &str| fs::write(format!("{CONFIGURATION}/{name}"), text).unwrap();
            write("users.csv", USERS);
            ["admin", "kubelet", "operator"].iter().for_each(|user| write(&format!("{user}.json"), &kubeconfig(user)));
            // The API server asks it at the node's address: `kubectl exec`.
            let kubelets = include_str!("../../../tests/kubelet-node/kubelet.yaml");
            let kubelets = kubelets.replace("address: 127.0.0.1", "address: 0.0.0.0");
            write("kubelet.yaml", &format!("{kubelets}{KUBELETS_OWN}"));
            fs::write("/run/cni/pods.conf", POD_NETWORK).unwrap();
        });
        let start = |program: &str, arguments: &[String]| {
            let mut command = Room::command(program);
            command.args(arguments);
            let name = Path::new(program).file_name().unwrap().to_str().unwrap();
            node.spawn(logged(command, &File::create(host.log(name)).unwrap()))
        };
        let etcd = start("/usr/bin/etcd", &words("--data-dir /run/etcd --unsafe-no-fsync"));
        let mut this = Self {
            kubelet: Mutex::default(),
            _control_plane: vec![etcd],
            node: node.clone(),
            host,
            files: AtomicU32::new(0),
        };
        let accounts = format!("{CONFIGURATION}/accounts");
        let api = format!(
            "--etcd-servers={ETCD} --secure-port=6443 --bind-address=127.0.0.1 --advertise-address={NODE_ADDRESS} \
             --service-cluster-ip-range=10.96.0.0/24 --cert-dir={CERTIFICATES} --allow-privileged=true \
             --token-auth-file={CONFIGURATION}/users.csv --authorization-mode=Node,RBAC \
             --kubelet-preferred-address-types=InternalIP \
             --enable-admission-plugins=NodeRestriction --feature-gates=CSIServiceAccountToken=true \
             --service-account-issuer=https://kubernetes.default.svc --api-audiences=https://kubernetes.default.svc \
             --service-account-signing-key-file={accounts}.key --service-account-key-file={accounts}.pub"
        );
        // Nobody's pods are less ready because the machine is busy.
        let controllers = format!(
            "--kubeconfig={CONFIGURATION}/admin.json --leader-elect=false --feature-gates=CSIServiceAccountToken=true \
             --node-monitor-grace-period=10m --kube-api-qps=200 --kube-api-burst=400 --root-ca-file={API_CERTIFICATES} --service-account-private-key-file={accounts}.key"
        );
        let scheduler = format!("--kubeconfig={CONFIGURATION}/admin.json --leader-elect=false");
        for (name, arguments) in
            [("kube-apiserver", api), ("kube-controller-manager", controllers), ("kube-scheduler", scheduler)]
        {
            let mut command = Room::command(format!("{PREPARED}/{name}"));
            command.args(words(&arguments));
            let process = node.spawn(logged(command, &File::create(this.host.log(name)).unwrap()));
            this._control_plane.push(process);
            wait("the API server is ready", || this.kubectl(&["get", "--raw", "/readyz"]).code == Some(0));
        }
        this.start_kubelet();
        wait("the node is ready", || this.get("node", NODE).is_some_and(|node| condition(&node, "Ready")));
        let account = ["serviceaccount", "default", "--namespace", "default"];
        wait("pods have an account", || this.kubectl(&[&["get"][..], &account].concat()).code == Some(0));
        this
    }

    /// Starts kubelet.
    pub(crate) fn start_kubelet(&self) {
        let mut command = Room::command(format!("{PREPARED}/kubelet"));
        command.args(words(&format!(
            "--config={CONFIGURATION}/kubelet.yaml --kubeconfig={CONFIGURATION}/kubelet.json --v=3 \
             --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
             --feature-gates=CSIServiceAccountToken=true --hostname-override={NODE} --node-ip={NODE_ADDRESS} \
             --register-with-taints={TAINT}=:NoSchedule"
        )));
        // It would ask the network.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let log = File::options().create(true).append(true).open(self.host.log("kubelet")).unwrap();
        *self.kubelet.lock().unwrap() = Some(self.node.spawn(logged(command, &log)));
    }

    /// Ends kubelet, as systemd does.
    pub(crate) fn stop_kubelet(&self) {
        let mut kubelet = self.kubelet.lock().unwrap().take().unwrap();
        kill(Pid::from_raw(kubelet.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        kubelet.wait().unwrap();
    }

    /// Runs kubectl as the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Done {
        let file = format!("--kubeconfig={CONFIGURATION}/admin.json");
        self.node
            .run(format!("{PREPARED}/kubectl"), &[&[file.as_str(), "--cache-dir=/run/kubectl"], arguments].concat())
    }

    /// Runs `kubectl hostmount` as a user.
    pub(crate) fn kubectl_hostmount(&self, user: &str, words: &str) -> Done {
        self.node.sh(&format!(
            "PATH={PREPARED}:$PATH HOME=/run/kubectl KUBECONFIG={CONFIGURATION}/{user}.json {PREPARED}/kubectl hostmount {words}"
        ))
    }

    /// The same with objects on which `verb` is done, as `user`, or as the administrator.
    pub(crate) fn with_objects_as(&self, user: Option<&str>, verb: &[&str], objects: &[Value]) -> Done {
        let path = format!("/tmp/objects-{}.json", self.files.fetch_add(1, Ordering::Relaxed));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.node.visit(|| fs::write(&path, list.to_string()).unwrap());
        let done =
            self.kubectl(&[verb, &["--filename", &path], &user.map_or(vec![], |user| vec!["--as", user])].concat());
        self.node.visit(|| fs::remove_file(&path).unwrap());
        done
    }

    /// Makes objects, or changes them.
    #[track_caller]
    pub(crate) fn apply(&self, objects: &[Value]) {
        // This API server is older than the client: it cannot tell which fields it does not know.
        self.with_objects_as(None, &["apply", "--validate=false"], objects).ok("kubectl apply");
    }

    /// An object in the namespace `default`, or in none.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "--output", "json"]).stdout).ok()
    }

    /// All objects of a kind.
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let done = self.kubectl(&["get", kind, "--all-namespaces", "--output", "json"]).ok("kubectl get");
        let list: Value = serde_json::from_str(&done).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Waits until a pod of the namespace `default` runs and is ready.
    #[track_caller]
    pub(crate) fn wait_until_running(&self, name: &str) -> Pod {
        wait(&format!("the pod {name} runs"), || self.get("pod", name).map(Pod).filter(Pod::is_running))
    }

    /// Whether the node has the driver's start-up taint.
    pub(crate) fn is_tainted(&self) -> bool {
        let node = self.get("node", NODE).unwrap();
        node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(|taint| taint["key"] == TAINT))
    }

    /// Removes a pod, as its owner would, and waits until nothing of it is left.
    #[track_caller]
    pub(crate) fn remove(&self, name: &str) {
        let pod = Pod(self.get("pod", name).unwrap());
        self.kubectl(&["delete", "pod", name]).ok("kubectl delete");
        self.host.wait_until_nothing_is_left(&pod);
    }

    /// What events say of a pod of the namespace `default`.
    pub(crate) fn events_of(&self, pod: &str) -> String {
        let of = format!("--field-selector=involvedObject.name={pod}");
        let done =
            self.kubectl(&["get", "events", &of, "--output", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
        done.ok("kubectl get events")
    }

    /// Puts what the pods have logged beside the logs of the cluster's programs.
    pub(crate) fn keep_logs(&self) {
        self.node.sh(&format!(
            "for log in /var/log/pods/*/*/*.log; do cp $log {PREPARED}/$(echo $log | cut -d/ -f5- | tr / .); done"
        ));
        for (name, arguments) in [
            ("events", &["get", "events", "--all-namespaces"][..]),
            ("pods", &["describe", "pods", "--all-namespaces"]),
        ] {
            let _ = fs::write(self.host.log(name), self.kubectl(arguments).stdout);
        }
    }

    /// Where a pod's CSI volume is on the node.
    pub(crate) fn csi_volume(pod: &Pod, volume: &str) -> String {
        format!("{KUBELET}/pods/{}/volumes/kubernetes.io~csi/{volume}/mount", pod.uid())
    }

    /// The directory of a pod's emptyDir on the node.
    pub(crate) fn empty_dir(pod: &Pod, volume: &str) -> String {
        format!("{KUBELET}/pods/{}/volumes/kubernetes.io~empty-dir/{volume}", pod.uid())
    }
}

/// Whether an object has a condition.
pub(crate) fn condition(object: &Value, of: &str) -> bool {
    let is_it = |one: &Value| one["type"] == of && one["status"] == "True";
    object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(is_it))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn kubeconfig(user: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": { "server": API, "insecure-skip-tls-verify": true } }],
        "users": [{ "name": user, "user": { "token": user } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
        "current-context": "test",
    })
    .to_string()
}
