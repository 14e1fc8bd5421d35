//! Kubernetes' interface, through crictl, and ctr.

use crate::remote::busy_image;
use crate::tree::Tree;
use testkit::inside::lists;
use testkit::{Containerd, Daemon, ImageSite, Kind, Sandbox, Snapshotter, Version, has_fuse};

/// Fails where what is deleted is there.
fn list() -> Vec<&'static str> {
    lists("./opaque/new", "deleted|[.]wh[.]", &["sh", "-c", "cd /data && find ."])
}

fn pod(version: Version, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let image = site.publish("test/box:1", &busy_image());
    let daemon = Daemon::start_in(&sandbox, &site.config());
    let containerd = Containerd::start(&sandbox, version, Snapshotter::Cvmfs(&daemon), &site.registry);
    let reference = site.registry.reference("test/box:1");

    containerd.crictl(&["pull", &reference]).ok();
    let pod = containerd.run_pod("pod");
    let container = containerd.run_in_pod(&pod, "box", &reference, &["sleep", "10000"]);
    containerd.crictl(&[&["exec", &container], &list()[..]].concat()).ok();
    assert_eq!(site.asked_for(&image), [0; 0], "{:?}", site.registry.accesses());
    // The pause image, too, is in the repository.
    assert!(site.registry.accesses().iter().all(|access| access.status == 200), "{:?}", site.registry.accesses());

    let state = containerd.socket().with_file_name("state/io.containerd.runtime.v2.task/k8s.io");
    let expected = Tree::of_umoci(&site, "test/box:1", &sandbox.join("umoci"));
    Tree::read(&state.join(&container).join("rootfs")).must_be(&expected);

    let info = containerd.crictl(&["imagefsinfo", "-o", "json"]).ok();
    if version == Version::V1_6 {
        // Debian's 1.6.20 does not look at the root that the configuration exports yet, 1.6.39 does.
        assert!(info.contains("io.containerd.snapshotter.v1.cvmfs-snapshotter"), "{info}");
    } else {
        assert!(info.contains(&format!("{:?}", daemon.root())), "{info}");
    }
    containerd.crictl(&["rmp", "-f", &pod.0]).ok();
    containerd.crictl(&["rmi", &reference]).ok();
}

#[test]
fn a_pod_of_containerd_2_4() {
    pod(Version::V2_4, Kind::Cvmfs);
}

#[test]
fn a_pod_of_containerd_2_3() {
    pod(Version::V2_3, Kind::Directory);
}

#[test]
fn a_pod_of_containerd_1_6() {
    pod(Version::V1_6, Kind::Cvmfs);
}

/// Who may make a pod may annotate it, and containerd makes such annotations labels of the pause container's snapshot.
#[test]
fn annotations_of_a_pod_ask_for_no_layer() {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, Kind::Directory);
    let image = site.publish("test/box:1", &busy_image());
    let daemon = Daemon::start_in(&sandbox, &site.config());
    let containerd = Containerd::start(&sandbox, Version::V2_4, Snapshotter::Cvmfs(&daemon), &site.registry);
    let layer = image.layers.last().expect("a layer").digest.clone();
    let target = format!("sha256:{}", "5".repeat(64));
    let annotations = serde_json::json!({
        "containerd.io/snapshot.ref": target,
        "containerd.io/snapshot/cri.layer-digest": layer,
        "containerd.io/snapshot/cri.image-layers": layer,
        "containerd.io/snapshot/remote/stargz.digest": layer,
    });
    let pod = containerd.run_annotated_pod("pod", &annotations);
    let snapshotter = "--snapshotter=cvmfs-snapshotter";
    let info = containerd.ctr(&["--namespace=k8s.io", "snapshots", snapshotter, "info", &pod.0]).ok();
    // They do reach the snapshotter.
    assert!(info.contains(&target) && info.contains(&layer) && info.contains("\"Active\""), "{info}");
    let listed = containerd.ctr(&["--namespace=k8s.io", "snapshots", snapshotter, "ls"]).ok();
    assert!(!listed.contains(&target), "{listed}");
    let log = daemon.log();
    assert!(!log.contains(layer.trim_start_matches("sha256:")), "the layer is not even looked for: {log}");
    containerd.crictl(&["rmp", "-f", &pod.0]).ok();
}

fn ctr(version: Version, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let image = site.publish("test/box:1", &busy_image());
    let daemon = Daemon::start_in(&sandbox, &site.config());
    let containerd = Containerd::start(&sandbox, version, Snapshotter::Cvmfs(&daemon), &site.registry);
    let reference = site.registry.reference("test/box:1");
    let hosts = containerd.socket().with_file_name("certs.d").to_string_lossy().into_owned();

    let snapshotter = "--snapshotter=cvmfs-snapshotter";
    containerd.ctr(&["images", "pull", snapshotter, "--hosts-dir", &hosts, &reference]).ok();
    assert_eq!(site.asked_for(&image), [0; 0], "{:?}", site.registry.accesses());
    let cgroup = format!("/{}/one", containerd.namespace());
    let run = ["run", "--rm", "--cgroup", &cgroup, snapshotter, &reference, "one"];
    containerd.ctr(&[&run[..], &list()].concat()).ok();
    containerd.ctr(&["images", "rm", "--sync", &reference]).ok();
}

#[test]
fn ctr_of_containerd_2_4() {
    ctr(Version::V2_4, Kind::Cvmfs);
}

#[test]
fn ctr_of_containerd_2_3() {
    ctr(Version::V2_3, Kind::Directory);
}
