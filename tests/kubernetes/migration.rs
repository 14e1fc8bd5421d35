//! A node that runs goes from overlayfs to our snapshotter, and back, by the commands of the documentation.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{Fixture, LIMIT};
use crate::node::{Default, Node};
use testkit::documents::blocks_of;
use testkit::{Entry, Image, Written, wait_until};

const REPLICAS: usize = 3;
const IMAGE: &str = "test/moving:1";

/// The pods of a Deployment and a static one, with a volume of the host.
struct Pods<'a> {
    fixture: &'a Fixture,
    image: Written,
}

impl Pods<'_> {
    /// Waits until all run, and says which blobs were downloaded since it was last asked.
    fn downloaded(&self, node: &Node) -> Vec<usize> {
        self.fixture.kubectl(&["rollout", "status", "deployment/moving", "--timeout=120s"]).ok();
        let pods = self.fixture.pods("app=moving");
        assert_eq!(pods.len(), REPLICAS);
        for pod in &pods {
            self.fixture.exec_prints(pod, &["cat", "/data/file"], "moving");
            self.fixture.exec(pod, &["sh", "-c", "echo $HOSTNAME >>/volume/log"]);
        }
        let running = || node.containerd.crictl(&["ps", "--quiet", "--name", "static"]).ok().lines().count() == 1;
        assert!(wait_until(LIMIT, running), "{}", node.containerd.crictl(&["ps", "--all"]));
        let downloaded = self.fixture.site.asked_for(&self.image);
        self.fixture.site.registry.forget();
        downloaded
    }
}

/// Does what the documentation says, with `change` for what it says of containerd's configuration.
fn follow(fixture: &Fixture, node: &mut Node, change: impl Fn(&Node)) {
    let blocks = blocks_of("docs/kubernetes.md", "migration");
    let [around, steps] = &blocks[..] else { panic!("{blocks:?}") };
    let (before, after) = around.split_once("# On the node: the steps below.").expect("what is done on the node");
    kubectl(fixture, node, before);
    for line in steps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["systemctl", "stop", "kubelet"] => drop(node.kubelet.stop().expect("kubelet ends")),
            ["systemctl", "start", "kubelet"] => node.restart_kubelet(&json!({})),
            ["systemctl", "restart", "containerd"] => node.containerd.restart(),
            ["crictl", ref args @ ..] => println!("{}", node.containerd.crictl(args).ok()),
            ["#", ..] => change(node),
            _ => panic!("{line}"),
        }
    }
    kubectl(fixture, node, after);
}

fn kubectl(fixture: &Fixture, node: &Node, lines: &str) {
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let line = line.replace("NODE", node.name());
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["kubectl", args @ ..] = &words[..] else { panic!("{line}") };
        fixture.cluster.kubectl(args).ok();
    }
}

pub(crate) fn from_overlayfs_and_back(fixture: &mut Fixture) {
    let layer = vec![Entry::dir("data"), Entry::file("data/file", "moving")];
    let image = fixture.publish(IMAGE, &Image::busybox().layer(layer));
    fixture.site.registry.withhold_nothing();
    let mut node = Node::start(fixture.sandbox, "127.0.0.3", &fixture.cluster, &fixture.site, Default::Nothing);
    let volume = fixture.sandbox.mkdir("volume");
    let more = json!({
        "nodeSelector": {"kubernetes.io/hostname": node.name()},
        "volumes": [{"name": "volume", "hostPath": {"path": volume}}],
    });
    let mounts = json!({"volumeMounts": [{"name": "volume", "mountPath": "/volume"}]});
    let spec = fixture.spec(IMAGE, more, mounts);
    fixture.apply(&[json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moving"},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": {"app": "moving"}},
            "template": {"metadata": {"labels": {"app": "moving"}}, "spec": spec},
        },
    })]);
    let named = json!({"name": "static"});
    let fixed: Value = fixture.pod("fixed", IMAGE, json!({"nodeSelector": null}), named);
    std::fs::write(node.static_pods().join("fixed.json"), fixed.to_string()).expect("a static pod");

    let pods = Pods { fixture, image };
    assert_eq!(pods.downloaded(&node), [0, 1]);
    assert_eq!(node.snapshots(), 0);

    for layer in &pods.image.layers {
        fixture.site.registry.withhold(&layer.digest);
    }
    follow(fixture, &mut node, Node::use_ours);
    assert_eq!(pods.downloaded(&node), [0; 0]);
    assert!(node.in_place() >= pods.image.layers.len(), "{}", node.in_place());

    fixture.site.registry.withhold_nothing();
    follow(fixture, &mut node, Node::use_overlayfs);
    // Only now.
    node.daemon.signal(Signal::SIGTERM);
    assert_eq!(pods.downloaded(&node), [0, 1]);
    let log = std::fs::read_to_string(volume.join("log")).expect("what the pods have written");
    assert_eq!(log.lines().count(), 3 * REPLICAS, "{log}");

    std::fs::remove_file(node.static_pods().join("fixed.json")).expect("the static pod");
    node.daemon.restart();
    fixture.delete_all();
    node.use_ours();
    node.containerd.restart();
    drop(node);
}
