//! The control plane of a cluster: etcd, the API server, the controller manager and the scheduler, on free ports of the
//! loopback interface; and kubectl.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::programs::tool;
use testkit::{Output, Process, Sandbox, run, wait_until};

const START_LIMIT: Duration = Duration::from_secs(60);
/// For one call of kubectl, which waits for pods itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(200);
const SEARCH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const TOKEN: &str = "of-the-tests";
/// What makes pods out of other objects, and removes what belongs to nothing any more.
const CONTROLLERS: &str = "--controllers=daemonset-controller,deployment-controller,replicaset-controller,job-controller,\
    garbage-collector-controller,namespace-controller,node-lifecycle-controller,taint-eviction-controller,\
    pod-garbage-collector-controller,serviceaccount-controller";

/// A running control plane.
pub(crate) struct Cluster {
    sandbox: &'static Sandbox,
    dir: PathBuf,
    api: Process,
}

impl Cluster {
    /// Starts it and waits until the API answers.
    pub(crate) fn start(sandbox: &'static Sandbox) -> Self {
        let dir = sandbox.mkdir("cluster");
        let (etcd, peer, api) = (free_port(), free_port(), free_port());
        let etcd = format!("http://127.0.0.1:{etcd}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = Command::new(tool("etcd", "server"));
        // What survives a crash of the machine is not what is tested.
        command.arg("--unsafe-no-fsync").arg("--data-dir").arg(dir.join("etcd"));
        command.args(["--listen-client-urls", &etcd, "--advertise-client-urls", &etcd]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level=warn"]);
        sandbox.spawn("etcd", command);

        let kubeconfig = dir.join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_for(api).to_string()).expect("the kubeconfig");
        fs::write(dir.join("tokens"), format!("{TOKEN},admin,admin,system:masters\n")).expect("the tokens");
        let key = dir.join("service-accounts.key");
        let made = run("openssl", &["genrsa", "-out", path(&key), "2048"], SEARCH, Duration::from_secs(30));
        made.ok();
        let mut command = Command::new(program("kube-apiserver"));
        command.args(["--bind-address=127.0.0.1", &format!("--secure-port={api}"), &format!("--etcd-servers={etcd}")]);
        command.arg(format!("--cert-dir={}", path(&dir.join("certificates"))));
        command.arg(format!("--token-auth-file={}", path(&dir.join("tokens"))));
        command.arg(format!("--service-account-key-file={}", path(&key)));
        command.arg(format!("--service-account-signing-key-file={}", path(&key)));
        command.args(["--service-account-issuer=https://tests", "--service-cluster-ip-range=10.0.0.0/24"]);
        command.args(["--authorization-mode=AlwaysAllow", "--disable-admission-plugins=ServiceAccount"]);
        command.args(["--allow-privileged", "--kubelet-preferred-address-types=Hostname", "--profiling=false"]);
        let api = sandbox.spawn("kube-apiserver", command);
        let cluster = Self { sandbox, dir, api };
        let ready = || cluster.kubectl(&["get", "--raw=/readyz"]).status.success();
        cluster.api.wait_for("the API is ready", START_LIMIT, ready);

        let config = format!("--kubeconfig={}", path(&kubeconfig));
        for (name, more) in [("kube-controller-manager", CONTROLLERS), ("kube-scheduler", "--v=0")] {
            let mut command = Command::new(program(name));
            command.args([&config, "--leader-elect=false", "--secure-port=0", "--profiling=false", more]);
            sandbox.spawn(name, command);
        }
        cluster
    }

    /// The file that tells clients where the API is and who they are.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Output {
        let (config, cache) = (self.kubeconfig(), self.dir.join("cache"));
        let all = [&["--kubeconfig", path(&config), "--cache-dir", path(&cache)], args].concat();
        run(program("kubectl"), &all, SEARCH, COMMAND_LIMIT)
    }

    /// Reads objects.
    #[track_caller]
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat()).ok();
        serde_json::from_str(&text).expect("JSON from kubectl")
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, namespace: &str, manifests: &[Value]) -> Output {
        let file = self.sandbox.join("manifest.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
        fs::write(&file, list.to_string()).expect("a manifest");
        self.kubectl(&["apply", "--namespace", namespace, "-f", path(&file)])
    }

    /// Waits until the node takes pods.
    pub(crate) fn wait_for_node(&self, name: &str) {
        let there = wait_until(START_LIMIT, || self.kubectl(&["get", "node", name]).status.success());
        assert!(there, "the node {name} does not register");
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", "node", name]).ok();
    }
}

/// A program of Kubernetes.
pub(crate) fn program(name: &str) -> PathBuf {
    tool("kubernetes-1.36", name)
}

/// A port of the loopback interface that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("the paths of a sandbox are ASCII")
}

fn kubeconfig_for(port: u16) -> Value {
    // The certificate is one that the API server signs itself.
    let server = json!({"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
    })
}
