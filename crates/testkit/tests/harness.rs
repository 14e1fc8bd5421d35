//! Proves the parts that the other end-to-end tests stand on, with containerd's own snapshotter.

use testkit::inside::prints;
use testkit::registry::Access;
use testkit::sandbox::mounts_below;
use testkit::{Containerd, Entry, Image, Nerdctl, Registry, Sandbox, Snapshotter, Version, Written};

const LIST: [&str; 3] = ["sh", "-c", "find /data /bin/busybox | sort"];

/// An image whose layers hide and replace something of each other, and the pause image.
fn images(sandbox: &Sandbox) -> Written {
    let layout = sandbox.join("layout");
    Image::pause().write(&layout, "test/pause:1");
    let below = vec![
        Entry::dir("data"),
        Entry::file("data/hidden", "below"),
        Entry::file("data/kept", "below").owner(1000, 1000).mode(0o640),
        Entry::dir("data/opaque"),
        Entry::file("data/opaque/hidden", "below"),
    ];
    let above = vec![
        Entry::whiteout("data/hidden"),
        Entry::dir("data/opaque"),
        Entry::opaque("data/opaque"),
        Entry::file("data/opaque/new", "above"),
        Entry::symlink("data/link", "kept"),
    ];
    Image::busybox().layer(below).layer(above).write(&layout, "test/box:1")
}

fn pull_and_run(version: Version, nerdctl: Nerdctl) {
    if !testkit::has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let image = images(&sandbox);
    let registry = Registry::start(&sandbox.join("layout")).expect("the registry");
    let containerd = Containerd::start(&sandbox, version, Snapshotter::Overlayfs, &registry);
    let reference = registry.reference("test/box:1");
    let list = prints("/bin/busybox\n/data\n/data/kept\n/data/link\n/data/opaque\n/data/opaque/new", &LIST);

    containerd.nerdctl(nerdctl, &["pull", &reference]).ok();
    for layer in &image.layers {
        assert_eq!(registry.asked_for(&layer.digest), 1, "{:?}", registry.accesses());
    }
    containerd.nerdctl(nerdctl, &[&["run", "--rm", "--network=none", &reference], &list[..]].concat()).ok();

    // One that is left to the sandbox.
    let id = containerd.nerdctl(nerdctl, &["run", "-d", "--network=host", &reference, "sleep", "1000"]).ok();
    let attributes = prints("1000 1000 640", &["stat", "-c", "%u %g %a", "/data/kept"]);
    containerd.nerdctl(nerdctl, &[&["exec", id.trim()], &attributes[..]].concat()).ok();

    // CRI has a namespace of its own, so it asks the registry again where it does not share content.
    registry.forget();
    containerd.crictl(&["pull", &reference]).ok();
    let pod = containerd.run_pod("pod");
    let container = containerd.run_in_pod(&pod, "box", &reference, &["sleep", "1000"]);
    containerd.crictl(&[&["exec", &container], &list[..]].concat()).ok();
    assert!(registry.asked_for("1") > 0, "{:?}", registry.accesses());

    assert!(!mounts_below(sandbox.path()).is_empty());
    let dir = sandbox.path().to_owned();
    drop(containerd);
    drop(sandbox);
    assert!(!dir.exists() && mounts_below(&dir).is_empty());
}

#[test]
fn containerd_2_4_with_nerdctl_2_3() {
    pull_and_run(Version::V2_4, Nerdctl::V2_3);
}

#[test]
fn containerd_1_6_with_nerdctl_1_7() {
    pull_and_run(Version::V1_6, Nerdctl::V1_7);
}

#[test]
fn a_withheld_layer_fails_the_pull() {
    if !testkit::has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let image = images(&sandbox);
    let registry = Registry::start(&sandbox.join("layout")).expect("the registry");
    let containerd = Containerd::start(&sandbox, Version::V2_4, Snapshotter::Overlayfs, &registry);
    registry.withhold_layers().expect("the layers of the layout");
    containerd.nerdctl(Nerdctl::V2_3, &["pull", &registry.reference("test/box:1")]).err();
    // The first refusal ends the pull, so not every layer is asked for.
    let of_layers = |access: &Access| image.layers.iter().any(|layer| layer.digest == access.reference());
    let refused = registry.accesses().into_iter().filter(of_layers).map(|access| access.status).collect::<Vec<_>>();
    assert!(!refused.is_empty() && refused.iter().all(|status| *status == 404), "{:?}", registry.accesses());
}
