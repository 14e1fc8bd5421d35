//! A node of the cluster: our daemon, a containerd that uses it, and kubelet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster, free_port, path};
use testkit::documents::blocks_of;
use testkit::programs::tool;
use testkit::{Containerd, Daemon, ImageSite, Output, Process, Sandbox, Version, run, wait_until};

/// containerd collects garbage some moments after the last user of a snapshot is gone.
const GARBAGE_LIMIT: Duration = Duration::from_secs(30);

/// It reads the state of all containers first.
const CRI_LIMIT: Duration = Duration::from_secs(60);

/// Where containerd finds what our program prints.
const DROP_IN: &str = "conf.d/cvmfs-snapshotter.toml";

/// kubelet's view of the machine. It writes its sockets and links to logs below /var, whatever its flags say, and sets
/// the kernel's parameters: here it has a /var of its own, and files in place of the parameters.
const KUBELET: &str = r#"
set -eu
for point in / /proc /var; do
    if mountpoint -q "$point"; then mount --make-private "$point"; fi
done
mkdir -p "$1/var" "$1/sysctl"
mount --bind "$1/var" /var
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    copy=$1/sysctl/$(basename "$name")
    cat "/proc/sys/$name" >"$copy"
    mount --bind "$copy" "/proc/sys/$name"
done
shift
exec "$@"
"#;

/// Which pods get our snapshotter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// All but those that ask for overlayfs.
    Cvmfs,
    /// Those that ask for it.
    Overlayfs,
    /// None: containerd is as it was before anybody has heard of us.
    Nothing,
}

/// A node that runs.
pub(crate) struct Node {
    sandbox: &'static Sandbox,
    name: String,
    port: u16,
    kubeconfig: PathBuf,
    dir: PathBuf,
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd<'static>,
    pub(crate) kubelet: Process,
}

impl Node {
    /// Starts a node. The name is an address of the loopback interface, so that it resolves without a name server.
    pub(crate) fn start(
        sandbox: &'static Sandbox,
        name: &str,
        cluster: &Cluster,
        site: &ImageSite,
        default: Default,
    ) -> Self {
        let daemon = Daemon::start_in_folder(sandbox, &format!("snapshotter-{name}"), &site.config());
        let folder = format!("containerd-{name}");
        let dir = sandbox.mkdir(&folder);
        fs::create_dir_all(dir.join("conf.d")).expect("a folder");
        let class = match default {
            Default::Cvmfs => Some("containerd: overlayfs on request"),
            Default::Overlayfs => Some("containerd: on request"),
            Default::Nothing => None,
        };
        if let Some(class) = class {
            let class = blocks_of("docs/kubernetes.md", class).concat();
            fs::write(dir.join("conf.d/runtime-class.toml"), class).expect("a drop-in");
            fs::write(dir.join(DROP_IN), printed(&daemon)).expect("a drop-in");
        }
        fs::create_dir_all(dir.join("cni")).expect("a folder");
        fs::write(dir.join("cni/tests.conflist"), network(&dir).to_string()).expect("the network");
        let config = containerd_config(&dir, &site.registry.reference("test/pause:1"));
        let snapshotter = "cvmfs-snapshotter";
        let containerd = Containerd::start_with(sandbox, &folder, Version::V2_4, snapshotter, &site.registry, &config);

        let dir = sandbox.mkdir(format!("kubelet-{name}"));
        share(&dir);
        make_cgroups(&cgroup(sandbox, name));
        let port = free_port();
        let config = kubelet_config(sandbox, name, port, &dir, &containerd.socket());
        fs::write(dir.join("config.json"), config.to_string()).expect("the configuration of kubelet");
        fs::create_dir_all(dir.join("static")).expect("a folder");
        let kubelet = spawn_kubelet(sandbox, name, &dir, &cluster.kubeconfig());
        cluster.wait_for_node(name);
        let kubeconfig = cluster.kubeconfig();
        Self { sandbox, name: name.into(), port, kubeconfig, dir, daemon, containerd, kubelet }
    }

    /// Its name, which is its address as well.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tells containerd to use our snapshotter, from its next start on.
    pub(crate) fn use_ours(&self) {
        fs::write(self.containerd.dir().join(DROP_IN), printed(&self.daemon)).expect("a drop-in");
    }

    /// Takes that back, when nothing of ours is used any more.
    pub(crate) fn use_overlayfs(&self) {
        assert!(wait_until(GARBAGE_LIMIT, || self.snapshots() == 0), "{} snapshots are left", self.snapshots());
        fs::remove_file(self.containerd.dir().join(DROP_IN)).expect("it was there");
    }

    /// What kubelet says of itself: the API server passes nothing on to an address of the loopback interface.
    pub(crate) fn summary(&self, cluster: &Cluster) -> Value {
        let server = format!("--server=https://{}:{}", self.name, self.port);
        let text = cluster.kubectl(&[&server, "get", "--raw=/stats/summary"]).ok();
        serde_json::from_str(&text).expect("JSON from kubelet")
    }

    /// The folder that kubelet reads static pods from.
    pub(crate) fn static_pods(&self) -> PathBuf {
        self.dir.join("static")
    }

    /// Starts kubelet again, after its end in good order unless it was killed before, with these settings besides the
    /// usual ones.
    pub(crate) fn restart_kubelet(&mut self, settings: &Value) {
        self.kubelet.stop().expect("kubelet ends when it is asked to");
        // While CRI does not answer, kubelet ends at once; a system would start it again.
        let answers = || self.containerd.crictl(&["info"]).status.success();
        assert!(wait_until(CRI_LIMIT, answers), "{}", self.containerd.crictl(&["info"]));
        let mut config = kubelet_config(self.sandbox, &self.name, self.port, &self.dir, &self.containerd.socket());
        merge(&mut config, settings);
        fs::write(self.dir.join("config.json"), config.to_string()).expect("the configuration of kubelet");
        self.kubelet = spawn_kubelet(self.sandbox, &self.name, &self.dir, &self.kubeconfig);
    }

    /// How many snapshots have a directory.
    pub(crate) fn snapshots(&self) -> usize {
        fs::read_dir(self.daemon.root().join("snapshots")).expect("the snapshots").count()
    }

    /// How many of them are layers in place.
    pub(crate) fn in_place(&self) -> usize {
        let snapshots = fs::read_dir(self.daemon.root().join("snapshots")).expect("the snapshots").flatten();
        snapshots.filter(|snapshot| snapshot.path().join("fs").is_symlink()).count()
    }

    /// Runs ctr where the objects of pods are.
    pub(crate) fn ctr(&self, args: &[&str]) -> Output {
        self.containerd.ctr(&[&["--namespace", "k8s.io"], args].concat())
    }

    /// Removes what a killed containerd still holds for requests that it no longer knows of: a lease of a day for each
    /// (`WithLease` in containerd's client/lease.go). Returns how many there were. No request may be under way.
    pub(crate) fn end_leases(&self) -> usize {
        let leases = self.ctr(&["leases", "ls", "--quiet"]).ok();
        for lease in leases.lines() {
            self.ctr(&["leases", "rm", "--sync", lease]).ok();
        }
        leases.lines().count()
    }

    /// Removes all pods and images through CRI, and says what is left then.
    pub(crate) fn clear(&self) -> Result<(), String> {
        for command in [&["rmp", "--force", "--all"][..], &["rmi", "--all"]] {
            let output = self.containerd.crictl(command);
            if !output.status.success() {
                return Err(format!("crictl {command:?}: {output}"));
            }
        }
        let snapshots = self.daemon.root().join("snapshots");
        if !wait_until(GARBAGE_LIMIT, || self.snapshots() == 0) {
            let lists =
                [&["snapshots", "--snapshotter", "cvmfs-snapshotter", "ls"][..], &["leases", "ls"], &["images", "ls"]];
            let lists = lists.map(|list| self.ctr(list).to_string());
            return Err(format!("{} snapshots are left in {}: {lists:#?}", self.snapshots(), snapshots.display()));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kubelet.signal(Signal::SIGTERM);
        self.kubelet.wait(GARBAGE_LIMIT);
        match self.clear() {
            Ok(()) => {}
            Err(problem) if std::thread::panicking() => eprintln!("{problem}"),
            Err(problem) => panic!("{problem}"),
        }
    }
}

/// What our program tells people to write.
fn printed(daemon: &Daemon) -> String {
    let (socket, root) = (daemon.socket(), daemon.root());
    let args = ["--address", path(&socket), "--root", path(&root), "containerd-config", "--for", "2"];
    run(testkit::programs::daemon(), &args, "/usr/bin:/bin", Duration::from_secs(10)).ok()
}

/// What a node has besides: here mostly that it must not meet others on this machine.
fn containerd_config(dir: &Path, pause: &str) -> String {
    format!(
        r#"version = 3
imports = ["{dir}/conf.d/*.toml"]
[plugins.'io.containerd.internal.v1.opt']
  path = "{dir}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.transfer.v1.local']
  config_path = "{dir}/certs.d"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{dir}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    conf_dir = "{dir}/cni"
    # Debian's place.
    bin_dirs = ["/usr/lib/cni"]
  # Debian's runc is too old for user namespaces in pods.
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    options = {{ BinaryName = "{runc}" }}
"#,
        dir = dir.display(),
        runc = tool("runc", "runc").display(),
    )
}

/// For the pods that are not on the host's network: a pair of interfaces for each, and nobody to talk to.
fn network(dir: &Path) -> Value {
    let addresses = json!({"type": "host-local", "subnet": "10.253.0.0/16", "dataDir": dir.join("addresses")});
    json!({"cniVersion": "1.0.0", "name": "tests", "plugins": [{"type": "ptp", "ipam": addresses}]})
}

fn kubelet_config(sandbox: &Sandbox, name: &str, port: u16, dir: &Path, containerd: &Path) -> Value {
    let inside = |name: &str| path(&dir.join(name)).to_owned();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", containerd.display()),
        "address": name, "port": port, "readOnlyPort": 0, "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "staticPodPath": inside("static"), "podLogsDir": inside("logs"), "volumePluginDir": inside("plugins"),
        "fileCheckFrequency": "1s",
        // What this machine may be like.
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", cgroup(sandbox, name)), "failCgroupV1": false,
        "oomScoreAdj": 0, "failSwapOn": false, "makeIPTablesUtilChains": false,
        // A full disk is not what is tested.
        "evictionHard": {"memory.available": "1Mi"}, "imageGCHighThresholdPercent": 100,
        "maxPods": 250, "registryPullQPS": 0, "eventRecordQPS": 0,
    })
}

fn merge(config: &mut Value, settings: &Value) {
    let settings = settings.as_object().expect("settings of kubelet");
    config.as_object_mut().expect("an object").extend(settings.clone());
}

fn spawn_kubelet(sandbox: &'static Sandbox, name: &str, dir: &Path, kubeconfig: &Path) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=unchanged", "sh", "-c", KUBELET, "sh"]).arg(dir);
    command.arg(cluster::program("kubelet"));
    command.arg(format!("--config={}", path(&dir.join("config.json"))));
    command.arg(format!("--kubeconfig={}", path(kubeconfig)));
    command.arg(format!("--root-dir={}", path(&dir.join("root"))));
    command.arg(format!("--cert-dir={}", path(&dir.join("certificates"))));
    command.arg(format!("--hostname-override={name}"));
    sandbox.spawn(&format!("kubelet-{name}"), command)
}

/// Makes a folder a mount that passes on what is mounted in it, as all of a host's are where systemd runs.
pub(crate) fn share(dir: &Path) {
    let none = None::<&str>;
    mount(Some(dir), dir, none, MsFlags::MS_BIND, none).expect("a bind mount");
    mount(none, dir, none, MsFlags::MS_SHARED, none).expect("a shared mount");
}

/// The cgroup of a node: a kubelet ends what it does not know in its own.
fn cgroup(sandbox: &Sandbox, node: &str) -> String {
    format!("{}/{}", sandbox.namespace(), node.replace('.', "-"))
}

/// Makes the cgroup, which kubelet has to find.
fn make_cgroups(name: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = if top.join("cgroup.controllers").exists() {
        vec![top.to_owned()]
    } else {
        let of_version_1 = fs::read_dir(top).expect("cgroups").flatten();
        of_version_1
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    for hierarchy in hierarchies {
        let cgroup = hierarchy.join(name);
        fs::create_dir_all(&cgroup).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
    }
}
