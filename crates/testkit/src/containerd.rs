//! A containerd of its own for one test, and the clients that people use with it.

mod config;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::output::{Output, run};
use crate::process::Process;
use crate::programs::{tool, tool_dir};
use crate::registry::Registry;
use crate::sandbox::{RUNC, Sandbox};

const START_LIMIT: Duration = Duration::from_secs(30);
/// For one command of a client: a pull and a run take 2 s on an idle machine of two cores.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// The versions of containerd that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.6, Debian's package.
    V1_6,
    /// 1.7, built.
    V1_7,
    /// 2.3, built.
    V2_3,
    /// 2.4, built.
    V2_4,
}

/// The versions of nerdctl that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nerdctl {
    /// 1.7.7.
    V1_7,
    /// 2.3.5.
    V2_3,
}

/// The snapshotter that the clients are told to use.
#[derive(Clone, Copy)]
pub enum Snapshotter<'a> {
    /// containerd's own.
    Overlayfs,
    /// The daemon under test.
    Cvmfs(&'a Daemon),
}

/// A running containerd.
pub struct Containerd<'a> {
    sandbox: &'a Sandbox,
    version: Version,
    snapshotter: &'static str,
    dir: PathBuf,
    process: Process,
}

impl Version {
    /// The folder with the programs of this version.
    pub fn bin(self) -> PathBuf {
        match self {
            Self::V1_6 => "/usr/bin".into(),
            Self::V1_7 => tool_dir("containerd-1.7"),
            Self::V2_3 => tool_dir("containerd-2.3"),
            Self::V2_4 => tool_dir("containerd-2.4"),
        }
    }

    fn program(self, name: &str) -> PathBuf {
        let path = self.bin().join(name);
        assert!(path.exists(), "{} is not there: run tools/install-deps and tools/build", path.display());
        path
    }

    /// The search path: the shim of this version, then runc and the rest of the system.
    fn path(self) -> String {
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin().display())
    }
}

impl Nerdctl {
    /// The program.
    pub fn program(self) -> PathBuf {
        match self {
            Self::V1_7 => tool("nerdctl-1.7", "nerdctl"),
            Self::V2_3 => tool("nerdctl-2.3", "nerdctl"),
        }
    }
}

impl Snapshotter<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Cvmfs(_) => "cvmfs-snapshotter",
        }
    }
}

impl<'a> Containerd<'a> {
    /// Starts containerd and waits until it answers. The registry must have the image `test/pause:1` for pods.
    pub fn start(sandbox: &'a Sandbox, version: Version, snapshotter: Snapshotter<'_>, registry: &Registry) -> Self {
        Self::start_in(sandbox, "containerd", version, snapshotter, registry)
    }

    /// As [`Containerd::start`], for one of several in a sandbox: each has a folder of its own there.
    pub fn start_in(
        sandbox: &'a Sandbox,
        folder: &str,
        version: Version,
        snapshotter: Snapshotter<'_>,
        registry: &Registry,
    ) -> Self {
        let dir = sandbox.join(folder);
        let config = config::render(version, &dir, snapshotter, &registry.reference("test/pause:1"));
        Self::start_with(sandbox, folder, version, snapshotter.name(), registry, &config)
    }

    /// As [`Containerd::start_in`], with a configuration of the caller's. The registry is in the folder `certs.d`.
    pub fn start_with(
        sandbox: &'a Sandbox,
        folder: &str,
        version: Version,
        snapshotter: &'static str,
        registry: &Registry,
        config: &str,
    ) -> Self {
        let dir = sandbox.mkdir(folder);
        // CRI and ctr do not try plain HTTP by themselves.
        let hosts = sandbox.mkdir(format!("{folder}/certs.d/{}", registry.host()));
        let host = format!("server = \"http://{0}\"\n[host.\"http://{0}\"]\n", registry.host());
        fs::write(hosts.join("hosts.toml"), host).expect("hosts.toml");
        fs::write(dir.join("config.toml"), config).expect("the configuration of containerd");
        let process = spawn(sandbox, version, &dir);
        Self { sandbox, version, snapshotter, dir, process }
    }

    /// The process of containerd.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The namespace that [`Containerd::ctr`] and [`Containerd::nerdctl`] use.
    pub fn namespace(&self) -> String {
        self.sandbox.namespace()
    }

    /// The folder with its configuration, `config.toml`, and all that it writes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// Starts it again; containers go on running.
    pub fn restart(&mut self) {
        self.process.stop().expect("containerd ends when it is asked to");
        self.process = spawn(self.sandbox, self.version, &self.dir);
    }

    /// What a reboot does: containerd, its shims and all containers are killed, and what lies in /run is gone.
    pub fn power_off(&self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(START_LIMIT).expect("nothing survives SIGKILL");
        self.sandbox.kill_all_of(&self.dir);
        fs::remove_dir_all(self.dir.join("state")).expect("the state of containerd");
        fs::remove_dir_all(Path::new(RUNC).join(self.namespace())).expect("the state of runc");
    }

    /// Starts containerd after [`Containerd::power_off`].
    pub fn boot(&mut self) {
        self.process = spawn(self.sandbox, self.version, &self.dir);
    }

    /// Runs ctr. It has the address and the namespace, but takes the snapshotter as an option of a few commands only.
    pub fn ctr(&self, args: &[&str]) -> Output {
        let (socket, namespace) = (self.socket(), self.namespace());
        let mut all = vec!["--address", str_of(&socket), "--namespace", &namespace];
        all.extend(args);
        run(self.version.program("ctr"), &all, &self.version.path(), COMMAND_LIMIT)
    }

    /// Runs nerdctl.
    pub fn nerdctl(&self, version: Nerdctl, args: &[&str]) -> Output {
        let mut all = self.nerdctl_options();
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        run(version.program(), &all, &self.version.path(), COMMAND_LIMIT)
    }

    /// nerdctl with the options of [`Containerd::nerdctl_options`], to be run by the caller.
    pub fn nerdctl_command(&self, version: Nerdctl, args: &[&str]) -> Command {
        let mut command = Command::new(version.program());
        command.args(self.nerdctl_options()).args(args).env("PATH", self.version.path());
        command
    }

    /// The options that every call of nerdctl needs here.
    pub fn nerdctl_options(&self) -> Vec<String> {
        let path = |name: &str| str_of(&self.dir.join(name)).to_owned();
        let with_value = [
            ("--address", str_of(&self.socket()).to_owned()),
            ("--namespace", self.namespace()),
            ("--data-root", path("nerdctl")),
            ("--cni-netconfpath", path("cni")),
            ("--hosts-dir", path("certs.d")),
            ("--cgroup-manager", "cgroupfs".into()),
            ("--snapshotter", self.snapshotter.into()),
        ];
        let mut options = vec!["--insecure-registry".to_owned()];
        options.extend(with_value.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        options
    }

    /// Runs crictl.
    pub fn crictl(&self, args: &[&str]) -> Output {
        let config = self.dir.join("crictl.yaml");
        let endpoint = format!("unix://{}", self.socket().display());
        let text = format!("runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\ntimeout: 60\n");
        fs::write(&config, text).expect("crictl.yaml");
        let mut all = vec!["--config", str_of(&config)];
        all.extend(args);
        run(tool("crictl", "crictl"), &all, &self.version.path(), COMMAND_LIMIT)
    }

    /// Starts a pod on the host's network, and returns its ID and the file that describes it.
    pub fn run_pod(&self, name: &str) -> (String, PathBuf) {
        self.run_annotated_pod(name, &serde_json::json!({}))
    }

    /// The same, with annotations.
    pub fn run_annotated_pod(&self, name: &str, annotations: &serde_json::Value) -> (String, PathBuf) {
        let file = self.sandbox.join(format!("pod-{name}.json"));
        let pod = serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "attempt": 0},
            "annotations": annotations,
            "log_directory": self.sandbox.mkdir("pods"),
            // Not CRI's common one, which tests that run at the same time would remove under each other's feet.
            "linux": {"cgroup_parent": format!("/{}", self.namespace()), "security_context": {"namespace_options": {"network": 2}}},
        });
        fs::write(&file, pod.to_string()).expect("the description of a pod");
        let id = self.crictl(&["runp", str_of(&file)]).ok();
        (id.trim().into(), file)
    }

    /// Makes and starts a container in a pod of [`Containerd::run_pod`], and returns its ID.
    pub fn run_in_pod(&self, (pod, pod_file): &(String, PathBuf), name: &str, image: &str, command: &[&str]) -> String {
        let file = self.sandbox.join(format!("container-{name}.json"));
        let container = serde_json::json!({
            "metadata": {"name": name}, "image": {"image": image}, "command": command, "log_path": format!("{name}.log"),
        });
        fs::write(&file, container.to_string()).expect("the description of a container");
        let id = self.crictl(&["create", pod, str_of(&file), str_of(pod_file)]).ok().trim().to_owned();
        self.crictl(&["start", &id]).ok();
        id
    }
}

fn spawn(sandbox: &Sandbox, version: Version, dir: &Path) -> Process {
    let socket = dir.join("s");
    let mut command = Command::new(version.program("containerd"));
    command.arg("--config").arg(dir.join("config.toml")).arg("--address").arg(&socket);
    command.arg("--root").arg(dir.join("root")).arg("--state").arg(dir.join("state")).env("PATH", version.path());
    let process = sandbox.spawn("containerd", command);
    process.wait_for("containerd listens", START_LIMIT, || UnixStream::connect(&socket).is_ok());
    process
}

fn str_of(path: &Path) -> &str {
    path.to_str().expect("the paths of a sandbox are ASCII")
}
