//! What all tests of this program share, since it takes a while to come up: a cluster with a node, a repository and a
//! registry. Each test has a Kubernetes namespace of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::{Default, Node, share};
use testkit::inside::prints;
use testkit::{Image, ImageSite, Kind, Output, Sandbox, Written, wait_until};

/// For anything that takes kubelet seconds: it looks again after an error in up to 40 s by then.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

static FIXTURE: Mutex<Option<Fixture>> = Mutex::new(None);
/// It lives as long as the process: [`finish`] empties it.
static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// The cluster, and the test that it is used by.
pub(crate) struct Fixture {
    // Dropped in this order.
    pub(crate) node: Node,
    pub(crate) cluster: Cluster,
    pub(crate) site: ImageSite,
    pub(crate) sandbox: &'static Sandbox,
    namespace: String,
}

/// Makes a test of a function. The first that runs starts the cluster.
pub(crate) fn test(name: &'static str, body: fn(&mut Fixture)) -> Trial {
    let run = move || {
        let mut fixture = FIXTURE.lock().unwrap_or_else(PoisonError::into_inner);
        if fixture.is_none() && SANDBOX.get().is_some() {
            return Err("the cluster did not start".into());
        }
        let fixture = fixture.get_or_insert_with(Fixture::start);
        fixture.begin(name);
        let result = catch_unwind(AssertUnwindSafe(|| body(fixture)));
        if result.is_err() {
            fixture.explain();
        }
        let ended = catch_unwind(AssertUnwindSafe(|| fixture.end()));
        if let Err(panic) = result.and(ended) {
            resume_unwind(panic);
        }
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(true)
}

/// Takes the cluster down, if a test started it. Tells what is left.
pub(crate) fn finish() -> Result<(), String> {
    let Some(sandbox) = SANDBOX.get() else {
        return Ok(());
    };
    let fixture = FIXTURE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if fixture.is_none() {
        sandbox.print_logs();
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(fixture)));
    sandbox.clean()?;
    dropped.map_err(|_| "the node could not be cleared".into())
}

impl Fixture {
    fn start() -> Self {
        let sandbox = SANDBOX.get_or_init(Sandbox::new);
        // Pods of a DaemonSet see what is mounted in it later only if it is shared, as all is where systemd runs.
        share(&sandbox.mkdir("cvmfs"));
        let site = ImageSite::new(sandbox, Kind::Cvmfs);
        let cluster = Cluster::start(sandbox);
        let node = Node::start(sandbox, "127.0.0.1", &cluster, &site, Default::Cvmfs);
        Self { node, cluster, site, sandbox, namespace: String::new() }
    }

    fn begin(&mut self, test: &str) {
        self.namespace = test.replace('_', "-").chars().take(63).collect::<String>().trim_end_matches('-').into();
        self.cluster.kubectl(&["create", "namespace", &self.namespace]).ok();
        self.site.registry.forget();
    }

    fn end(&mut self) {
        // A node of the test's own has no kubelet any more, for which its pods would wait.
        let others = format!("kubernetes.io/hostname!={}", self.node.name());
        self.cluster.kubectl(&["delete", "nodes", "--selector", &others, "--timeout=60s"]).ok();
        self.delete_all();
        // Where a test has failed before it did so itself.
        if self.node.daemon.process().ended().is_some() {
            self.node.daemon.restart();
        }
        self.cluster.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]).ok();
    }

    /// What a person would look at first when a test fails.
    fn explain(&self) {
        for what in [&["get", "pods", "-o", "wide"][..], &["get", "events", "--sort-by=.lastTimestamp"]] {
            eprintln!("{}", self.kubectl(what));
        }
        let node = &self.node;
        let logs = [
            ("kubelet", &node.kubelet),
            ("containerd", node.containerd.process()),
            ("snapshotter", node.daemon.process()),
        ];
        for (name, process) in logs {
            let log = process.log_text();
            let lines = log.lines().rev().filter(|line| !line.contains(" DEBUG ") && !line.contains("level=info"));
            eprintln!("--- the end of the log of {name}, which has ended: {:?}", process.ended());
            for line in lines.take(40).collect::<Vec<_>>().iter().rev() {
                eprintln!("{line}");
            }
        }
    }

    /// Runs kubectl in the namespace of the test.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Output {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    /// Reads objects in the namespace of the test.
    #[track_caller]
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        self.cluster.get(&[&["--namespace", &self.namespace], args].concat())
    }

    /// Applies manifests in the namespace of the test.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &[Value]) {
        self.try_apply(manifests).ok();
    }

    /// As [`Fixture::apply`], for what the API may refuse.
    pub(crate) fn try_apply(&self, manifests: &[Value]) -> Output {
        self.cluster.apply(&self.namespace, manifests)
    }

    /// Deletes all pods of the test, and what makes them, and waits for their end.
    #[track_caller]
    pub(crate) fn delete_all(&self) {
        self.kubectl(&["delete", "deployments,jobs,daemonsets,pods", "--all", "--now", "--timeout=120s"]).ok();
    }

    /// The names of the pods with a label.
    #[track_caller]
    pub(crate) fn pods(&self, selector: &str) -> Vec<String> {
        let names = self.kubectl(&["get", "pods", "--selector", selector, "-o", "name"]).ok();
        names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
    }

    /// Waits until a pod is ready.
    #[track_caller]
    pub(crate) fn wait_for_pod(&self, name: &str) {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", name]).ok();
    }

    /// Runs a command in the container of a pod, which must succeed.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, command: &[&str]) {
        self.kubectl(&[&["exec", pod, "--"], command].concat()).ok();
    }

    /// Runs a command in the container of a pod, which must print this; it is compared there.
    #[track_caller]
    pub(crate) fn exec_prints(&self, pod: &str, command: &[&str], expected: &str) {
        self.exec(pod, &prints(expected, command));
    }

    /// Waits for an event of a pod with this text, as `kubectl describe pod` shows it, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, pod: &str, text: &str) -> String {
        let mut found = None;
        let selector = format!("--field-selector=involvedObject.name={pod}");
        let there = wait_until(LIMIT, || {
            let events = self.get(&["events", &selector]);
            let messages =
                events["items"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
            found = messages.into_iter().find(|message| message.contains(text)).map(str::to_owned);
            found.is_some()
        });
        assert!(there, "no event of {pod} with {text:?}: {}", self.kubectl(&["describe", "pod", pod]));
        found.unwrap_or_default()
    }

    /// The Kubernetes namespace of the test.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Gives containerd the layers of the sandboxes' image, which it does not have as long as they are in place only: a
    /// pod with another snapshotter needs them. The registry must have them.
    #[track_caller]
    pub(crate) fn unpack_sandbox_image(&self) {
        let pause = self.image("test/pause:1");
        self.node.ctr(&["images", "pull", "--snapshotter", "overlayfs", "--plain-http", &pause]).ok();
    }

    /// Puts an image into the repository; the registry has no layer of it.
    pub(crate) fn publish(&self, name: &str, image: &Image) -> Written {
        self.site.publish(name, image)
    }

    /// The whole name of an image.
    pub(crate) fn image(&self, name: &str) -> String {
        self.site.registry.reference(name)
    }

    /// A pod on the node that sleeps, with these fields of its specification and of its container besides.
    pub(crate) fn pod(&self, name: &str, image: &str, spec: Value, container: Value) -> Value {
        let spec = self.spec(image, spec, container);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    }

    /// The specification of such a pod.
    pub(crate) fn spec(&self, image: &str, more: Value, container: Value) -> Value {
        let sleeping = json!({"name": "box", "image": self.image(image), "command": ["sleep", "100000"]});
        let spec = json!({
            // The node has no network for pods.
            "hostNetwork": true, "nodeSelector": {"kubernetes.io/hostname": self.node.name()},
            // The command of a container that sleeps does not listen to SIGTERM.
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [join(sleeping, container)],
        });
        join(spec, more)
    }
}

/// The fields of both; those of the second win.
fn join(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}
