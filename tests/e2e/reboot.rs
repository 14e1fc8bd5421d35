//! A reboot and an upgrade, under containers that have written data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::cannot_run;
use crate::common::daemon::program;
use crate::common::sandbox::{Sandbox, wait_until};
use crate::node::{Node, Release};
use crate::remote::busy_image;
use crate::restart::wait_for_connection;
use crate::site::{Kind, Site};
use crate::tree::Tree;

/// Everything is killed, /run is emptied, and the repository is mounted late.
fn reboot(release: Release) {
    if cannot_run() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut site = Site::new(&sandbox, Kind::Cvmfs);
    let mut node = Node::start(&sandbox, release, &site);
    let image = site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    let container = node.start_sleeping(&reference);
    let exec = |node: &Node<'_>, script: &str| node.nerdctl(&["exec", &container, "sh", "-c", script]).ok();
    exec(&node, "echo data >/data/written && rm /data/kept && sync");
    let before = Tree::read(&node.rootfs(&container));

    node.daemon.kill(Signal::SIGKILL);
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
    assert_eq!(exec(&node, "cat /data/written && ! test -e /data/kept && echo right"), "data\nright\n");
    assert_eq!(site.asked_for(&image), [0; 0], "nothing is downloaded for it");
    // The image is as good as before, too.
    assert_eq!(node.run(&reference, &["cat", "/data/opaque/new"]), "above");
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
    if cannot_run() {
        return;
    }
    let sandbox = Sandbox::new();
    let site = Site::new(&sandbox, Kind::Cvmfs);
    let mut node = Node::start(&sandbox, Release::New, &site);
    site.publish("test/box:1", &busy_image());
    let reference = site.registry.reference("test/box:1");
    node.pull(&reference);
    let container = node.start_sleeping(&reference);
    let exec = |node: &Node<'_>, script: &str| node.nerdctl(&["exec", &container, "sh", "-c", script]).ok();
    exec(&node, "echo data >/data/written");
    let before = Tree::read(&node.rootfs(&container));

    let other = sandbox.join("another-program");
    fs::copy(program(), &other).expect("a copy");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("chmod");
    node.daemon.upgrade(&other);
    let runs = fs::read_link(format!("/proc/{}/exe", node.daemon.process().pid())).expect("its program");
    assert_eq!(runs, other);
    wait_for_connection(&node);

    Tree::read(&node.rootfs(&container)).must_be(&before);
    assert_eq!(exec(&node, "cat /data/written"), "data\n");
    assert_eq!(node.run(&reference, &["cat", "/data/opaque/new"]), "above");
    node.nerdctl(&["restart", "--time=1", &container]).ok();
    assert_eq!(exec(&node, "cat /data/written"), "data\n");
    node.remove(&container);
}
