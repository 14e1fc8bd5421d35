//! A node that runs goes from overlayfs to our snapshotter, and back, by the commands of the documentation.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::blocks::blocks_of;
use crate::common::image::{Entry, Image, Written};
use crate::common::sandbox::wait_until;
use crate::node::{Default, Node};
use crate::stage::{LIMIT, Stage};

const REPLICAS: usize = 3;
const IMAGE: &str = "test/moving:1";

/// The pods of a Deployment and a static one, with a volume of the host.
struct Pods<'a> {
    stage: &'a Stage,
    image: Written,
}

impl Pods<'_> {
    /// Waits until all run, and says which blobs were downloaded since it was last asked.
    fn downloaded(&self, node: &Node) -> Vec<usize> {
        self.stage.kubectl(&["rollout", "status", "deployment/moving", "--timeout=120s"]).ok();
        let pods = self.stage.pods("app=moving");
        assert_eq!(pods.len(), REPLICAS);
        for pod in &pods {
            assert_eq!(self.stage.exec(pod, &["cat", "/data/file"]), "moving");
            self.stage.exec(pod, &["sh", "-c", "echo $HOSTNAME >>/volume/log"]);
        }
        let running = || node.containerd.crictl(&["ps", "--quiet", "--name", "static"]).ok().lines().count() == 1;
        assert!(wait_until(LIMIT, running), "{}", node.containerd.crictl(&["ps", "--all"]));
        let downloaded = self.stage.site.asked_for(&self.image);
        self.stage.site.registry.forget();
        downloaded
    }
}

/// Does what the documentation says, with `change` for what it says of containerd's configuration.
fn follow(stage: &Stage, node: &mut Node, change: impl Fn(&Node)) {
    let blocks = blocks_of("docs/kubernetes.md", "migration");
    let [around, steps] = &blocks[..] else { panic!("{blocks:?}") };
    let (before, after) = around.split_once("# On the node: the steps below.").expect("what is done on the node");
    kubectl(stage, node, before);
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
    kubectl(stage, node, after);
}

fn kubectl(stage: &Stage, node: &Node, lines: &str) {
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let line = line.replace("NODE", node.name());
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["kubectl", args @ ..] = &words[..] else { panic!("{line}") };
        stage.cluster.kubectl(args).ok();
    }
}

pub(crate) fn from_overlayfs_and_back(stage: &mut Stage) {
    let layer = vec![Entry::dir("data"), Entry::file("data/file", "moving")];
    let image = stage.publish(IMAGE, &Image::busybox().layer(layer));
    stage.site.registry.withhold_nothing();
    let mut node = Node::start(stage.sandbox, "127.0.0.3", &stage.cluster, &stage.site, Default::Nothing);
    let volume = stage.sandbox.mkdir("volume");
    let more = json!({
        "nodeSelector": {"kubernetes.io/hostname": node.name()},
        "volumes": [{"name": "volume", "hostPath": {"path": volume}}],
    });
    let mounts = json!({"volumeMounts": [{"name": "volume", "mountPath": "/volume"}]});
    let spec = stage.spec(IMAGE, more, mounts);
    stage.apply(&[json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moving"},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": {"app": "moving"}},
            "template": {"metadata": {"labels": {"app": "moving"}}, "spec": spec},
        },
    })]);
    let named = json!({"name": "static"});
    let fixed: Value = stage.pod("fixed", IMAGE, json!({"nodeSelector": null}), named);
    std::fs::write(node.static_pods().join("fixed.json"), fixed.to_string()).expect("a static pod");

    let pods = Pods { stage, image };
    assert_eq!(pods.downloaded(&node), [0, 1]);
    assert_eq!(node.snapshots(), 0);

    for layer in &pods.image.layers {
        stage.site.registry.withhold(&layer.digest);
    }
    follow(stage, &mut node, Node::use_ours);
    assert_eq!(pods.downloaded(&node), [0; 0]);
    assert!(node.in_place() >= pods.image.layers.len(), "{}", node.in_place());

    stage.site.registry.withhold_nothing();
    follow(stage, &mut node, Node::use_overlayfs);
    // Only now.
    node.daemon.kill(Signal::SIGTERM);
    assert_eq!(pods.downloaded(&node), [0, 1]);
    let log = std::fs::read_to_string(volume.join("log")).expect("what the pods have written");
    assert_eq!(log.lines().count(), 3 * REPLICAS, "{log}");

    std::fs::remove_file(node.static_pods().join("fixed.json")).expect("the static pod");
    node.daemon.restart();
    stage.delete_all();
    node.use_ours();
    node.containerd.restart();
    drop(node);
}
