//! A reboot and an upgrade, under containers that have written data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::restart::wait_for_connection;
use crate::tree::Tree;
use testkit::inside::prints;
use testkit::{ImageSite, Kind, Sandbox, has_fuse, wait_until};

/// Everything is killed, /run is emptied, and the repository is mounted late.
fn reboot(release: Release) {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut site = ImageSite::new(&sandbox, Kind::Cvmfs);
    let mut node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    let container = node.start_sleeping(&reference);
    node.exec(&container, &["sh", "-c", "echo data >/data/written && rm /data/kept && sync"]);
    let before = Tree::read(&node.rootfs(&container));

    node.daemon.signal(Signal::SIGKILL);
    node.containerd.power_off();
    fs::remove_file(node.daemon.socket()).expect("it was in /run");
    site.mock().kill();
    site.mock().unmount();
    site.registry.forget();

    node.containerd.boot();
    node.daemon.restart();
    wait_for_connection(&node);
    let message = node.nerdctl(&["start", &container]).err();
    assert!(message.contains("test.cern.ch") && message.contains("is not mounted"), "{message}");
    site.mock().remount();
    let mut last = String::new();
    let started = wait_until(Duration::from_secs(30), || {
        let output = node.nerdctl(&["start", &container]);
        last = output.to_string();
        output.status.success()
    });
    assert!(started, "{last}");
    Tree::read(&node.rootfs(&container)).must_be(&before);
    node.exec(&container, &prints("data", &["sh", "-c", "cat /data/written && ! test -e /data/kept"]));
    assert_eq!(site.asked_for(&image), [0; 0], "nothing is downloaded for it");
    // The image is as good as before, too.
    node.run(&reference, &prints("above", &["cat", "/data/opaque/new"]));
    node.remove(&container);
}

#[test]
fn a_reboot_with_a_late_repository() {
    reboot(Release::New);
}

#[test]
fn a_reboot_with_a_late_repository_with_containerd_1_6() {
    reboot(Release::Old);
}

#[test]
fn an_upgrade_to_another_program() {
    if !has_fuse() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = ImageSite::new(&sandbox, Kind::Cvmfs);
    let mut node = Node::start(&sandbox, Release::New, &site);
    site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    let container = node.start_sleeping(&reference);
    node.exec(&container, &["sh", "-c", "echo data >/data/written"]);
    let before = Tree::read(&node.rootfs(&container));

    let other = sandbox.join("another-program");
    fs::copy(testkit::programs::daemon(), &other).expect("a copy");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("chmod");
    node.daemon.upgrade(&other);
    let runs = fs::read_link(format!("/proc/{}/exe", node.daemon.process().pid())).expect("its program");
    assert_eq!(runs, other);
    wait_for_connection(&node);

    Tree::read(&node.rootfs(&container)).must_be(&before);
    node.exec(&container, &prints("data", &["cat", "/data/written"]));
    node.run(&reference, &prints("above", &["cat", "/data/opaque/new"]));
    node.nerdctl(&["restart", "--time=1", &container]).ok();
    node.exec(&container, &prints("data", &["cat", "/data/written"]));
    node.remove(&container);
}
