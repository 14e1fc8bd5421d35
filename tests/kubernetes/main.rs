//! Kubernetes: a cluster whose node has our snapshotter, driven by kubectl as a person would.
//!
//! One cluster serves all tests, so this program has a harness of its own; its tests are ignored unless asked for:
//! `make test-kubernetes`.

mod access;
mod cluster;
mod crashes;
mod daemonset;
mod deployment;
mod fixture;
mod garbage;
mod images;
mod migration;
mod node;
mod pods;
mod runtime_class;

use std::process::ExitCode;

use fixture::test;
use libtest_mimic::{Arguments, run};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if (arguments.ignored || arguments.include_ignored) && !arguments.list && !testkit::has_fuse() {
        return ExitCode::SUCCESS;
    }
    // They share the node.
    arguments.test_threads = Some(1);
    let tests = vec![
        test("twenty_pods_start_without_a_layer", deployment::twenty_pods_start_without_a_layer),
        test("a_missing_layer_is_downloaded", images::a_missing_layer_is_downloaded),
        test("images_share_their_layers", images::images_share_their_layers),
        test("pull_policy_always", images::pull_policy_always_asks_for_the_manifest_alone),
        test("init_and_ephemeral_containers", pods::init_and_ephemeral_containers),
        test("exec_cp_and_logs", pods::exec_cp_and_logs),
        test("users_and_groups", pods::users_and_groups),
        test("volumes_of_images", pods::volumes_of_images),
        test("a_read_only_root", pods::a_read_only_root),
        test("a_static_pod", pods::a_static_pod),
        test("a_job_of_a_hundred_short_pods", pods::a_job_of_a_hundred_short_pods),
        test("a_registry_with_a_password", access::a_registry_with_a_password),
        test("annotations_of_a_pod_have_no_effect", access::annotations_of_a_pod_have_no_effect),
        test("a_user_namespace_fails_at_once", access::a_user_namespace_fails_at_once),
        test("overlayfs_beside_our_default", runtime_class::overlayfs_beside_our_default),
        test("ours_beside_a_default_of_overlayfs", runtime_class::ours_beside_a_default_of_overlayfs),
        test("from_overlayfs_and_back", migration::from_overlayfs_and_back),
        test("the_snapshotter_as_a_daemon_set", daemonset::the_snapshotter_as_a_daemon_set),
        test("what_kubelet_counts", garbage::what_kubelet_counts),
        test("crictl_prunes_everything", garbage::crictl_prunes_everything),
        test("kubelet_removes_images_under_disk_pressure", garbage::kubelet_removes_images_under_disk_pressure),
        test("the_daemon_was_never_started", crashes::the_daemon_was_never_started),
        test("all_parts_are_killed_while_pods_come_and_go", crashes::all_parts_are_killed_while_pods_come_and_go),
        test("a_repository_dies_and_returns", crashes::a_repository_dies_and_returns),
    ];
    let conclusion = run(&arguments, tests);
    match fixture::finish() {
        Ok(()) => conclusion.exit_code(),
        Err(problems) => {
            eprintln!("the tests left something behind: {problems}");
            ExitCode::FAILURE
        }
    }
}
