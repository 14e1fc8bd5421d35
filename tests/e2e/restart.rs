//! Restarts and crashes of the daemon: images and running containers with their data stay.

use nix::sys::signal::Signal;
use std::time::Duration;

use crate::node::{Node, Release, mounts_naming};
use crate::remote::busy_image;
use crate::tree::Tree;
use testkit::inside::prints;
use testkit::{ImageSite, Kind, Sandbox, has_fuse, wait_until};

fn restarts(release: Release, kind: Kind) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, kind);
    let mut node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    // With one local layer in the middle.
    site.hide([&image.layers[2].digest]);
    site.registry.withhold_nothing();
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    site.registry.withhold_layers().expect("the layers of the layout");
    let expected = Tree::of_umoci(&site, "test/box:1", &sandbox.join("umoci"));

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // Between pull and run.
        restart(&mut node, signal);
        let container = node.start_sleeping(&reference);
        Tree::read(&node.rootfs(&container)).must_be(&expected);

        // With a running container.
        let change = "echo data >/data/written && rm /data/kept && echo more >>/data/opaque/new";
        node.exec(&container, &["sh", "-c", change]);
        let script = "cat /data/written /data/opaque/new && ! test -e /data/kept && ! test -e /data/deleted";
        let as_before = |node: &Node<'_>| node.exec(&container, &prints("data\nabovemore", &["sh", "-c", script]));
        let before = Tree::read(&node.rootfs(&container));
        restart(&mut node, signal);
        as_before(&node);
        Tree::read(&node.rootfs(&container)).must_be(&before);
        assert_eq!(mounts_naming(site.path()), [""; 0]);

        // containerd, and then both at once.
        for both in [false, true] {
            if both {
                node.daemon.signal(signal);
            }
            node.containerd.restart();
            if both {
                restart(&mut node, signal);
            }
            as_before(&node);
            Tree::read(&node.rootfs(&container)).must_be(&before);
        }

        // Stopped, and started after both have been restarted.
        node.nerdctl(&["stop", "--time=1", &container]).ok();
        restart(&mut node, signal);
        node.containerd.restart();
        node.nerdctl(&["start", &container]).ok();
        as_before(&node);
        node.remove(&container);
    }
    site.registry.forget();
    node.pull(&reference);
    assert_eq!(site.asked_for(&image), [0; 0]);
}

/// Ends the daemon in this way and starts it again.
fn restart(node: &mut Node<'_>, signal: Signal) {
    node.daemon.signal(signal);
    node.daemon.process().wait(Duration::from_secs(20)).expect("the daemon ends");
    node.daemon.restart();
    wait_for_connection(node);
}

/// containerd waits up to 3 s before it connects to a new daemon, and fails all requests until then.
pub(crate) fn wait_for_connection(node: &Node<'_>) {
    let connected = || node.containerd.ctr(&["snapshots", "--snapshotter=cvmfs-snapshotter", "ls"]).status.success();
    assert!(wait_until(Duration::from_secs(20), connected), "containerd does not connect again");
}

#[test]
fn restarts_and_crashes_on_cvmfs() {
    restarts(Release::New, Kind::Cvmfs);
}

#[test]
fn restarts_and_crashes_with_containerd_1_6() {
    restarts(Release::Old, Kind::Directory);
}
