use std::path::Path;

use super::mount::*;
use super::plan::Shape;
use super::stack::{Layer, Remote};
use crate::digest::Digest;

const NONE: Shape = Shape { cover: false, seal: false, erase: false, hides_all: false };
const ALL: Shape = Shape { cover: true, seal: true, erase: true, hides_all: false };
const ROOT: Shape = Shape { cover: true, seal: false, erase: false, hides_all: true };

fn local(id: u64) -> Layer {
    Layer { id, remote: None }
}

fn remote(id: u64, layer: u8, shape: Shape) -> Layer {
    Layer { id, remote: Some(Remote { layer: Digest::from_bytes([layer; 32]), shape }) }
}

fn shown(access: Access, chain: &[Layer]) -> String {
    match mount(Path::new("/r/snapshots"), access, chain, true) {
        Ok(Mount { kind, source, options }) => format!("{kind} {source} {}", options.join(" ")),
        Err(e) => e.to_string(),
    }
}

#[test]
fn rule_11_views_and_rule_12_one_mount() {
    let view = Access::View { id: 9 };
    let write = Access::Write { id: 9 };
    insta::assert_snapshot!(shown(view, &[]), @"bind /r/snapshots/9/fs ro rbind");
    insta::assert_snapshot!(shown(view, &[local(1)]), @"bind /r/snapshots/1/fs ro rbind");
    insta::assert_snapshot!(shown(view, &[local(2), local(1)]), @"overlay overlay index=off lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs");
    insta::assert_snapshot!(shown(write, &[]), @"bind /r/snapshots/9/fs rw rbind");
    insta::assert_snapshot!(shown(write, &[local(1)]), @"overlay overlay index=off workdir=/r/snapshots/9/work upperdir=/r/snapshots/9/fs lowerdir=/r/snapshots/1/fs");
}

#[test]
fn a_view_of_one_remote_layer_is_never_a_bare_bind() {
    insta::assert_snapshot!(shown(Access::View { id: 9 }, &[remote(1, 1, NONE)]), @"overlay overlay index=off lowerdir=/r/snapshots/1/c:/r/snapshots/1/fs");
}

#[test]
fn the_top_most_remote_layer_has_its_cover_and_the_others_only_what_they_need() {
    let chain = [local(6), remote(5, 5, NONE), remote(4, 4, ALL), local(3), remote(2, 2, NONE), remote(1, 1, ALL)];
    insta::assert_snapshot!(shown(Access::View { id: 9 }, &chain), @"overlay overlay index=off lowerdir=/r/snapshots/6/fs:/r/snapshots/5/c:/r/snapshots/5/fs:/r/snapshots/4/c:/r/snapshots/4/fs:/r/snapshots/4/s:/r/snapshots/4/e:/r/snapshots/3/fs:/r/snapshots/2/fs:/r/snapshots/1/c:/r/snapshots/1/fs");
}

#[test]
fn rule_13_a_repeated_layer_is_listed_once_at_its_top_most_place() {
    let chain = [remote(4, 1, NONE), remote(3, 2, ALL), remote(2, 1, NONE), remote(1, 2, ALL)];
    insta::assert_snapshot!(shown(Access::View { id: 9 }, &chain), @"overlay overlay index=off lowerdir=/r/snapshots/4/c:/r/snapshots/4/fs:/r/snapshots/3/c:/r/snapshots/3/fs:/r/snapshots/3/s:/r/snapshots/3/e");
}

#[test]
fn an_opaque_root_ends_the_stack() {
    let chain = [local(3), remote(2, 2, ROOT), remote(1, 1, ALL)];
    insta::assert_snapshot!(shown(Access::View { id: 9 }, &chain), @"overlay overlay index=off lowerdir=/r/snapshots/3/fs:/r/snapshots/2/c:/r/snapshots/2/fs");
}

#[test]
fn an_extraction_sees_the_layers_alone() {
    let chain = [local(3), remote(2, 2, ALL), remote(1, 1, ALL)];
    insta::assert_snapshot!(shown(Access::Extract { id: 9 }, &chain), @"overlay overlay index=off workdir=/r/snapshots/9/work upperdir=/r/snapshots/9/fs lowerdir=/r/snapshots/3/fs:/r/snapshots/2/fs:/r/snapshots/1/fs");
}

#[test]
fn index_is_named_only_to_a_kernel_that_knows_it() {
    let mount = mount(Path::new("/r"), Access::View { id: 9 }, &[local(2), local(1)], false).unwrap();
    assert_eq!(mount.options, ["lowerdir=/r/2/fs:/r/1/fs"]);
}

#[test]
fn rule_14_127_plain_layers_fit_and_124_with_everything_do_not() {
    let snapshots = Path::new("/var/lib/containerd-cvmfs-grpc/snapshots");
    let plain: Vec<Layer> = (0..127u8).map(|n| remote(1000 + u64::from(n), n, NONE)).collect();
    assert_eq!(fits(snapshots, &plain, 0), Ok(()));
    let all: Vec<Layer> = (0..124u8).map(|n| remote(1000 + u64::from(n), n, ALL)).collect();
    assert!(matches!(fits(snapshots, &all, 0), Err(TooLarge::Options(_))));
    assert!(matches!(mount(snapshots, Access::View { id: 1 }, &all, true), Err(TooLarge::Options(_))));
}

#[test]
fn room_is_kept_for_the_layers_above() {
    let snapshots = Path::new("/r/snapshots");
    let chain: Vec<Layer> = (0..110u8).map(|n| remote(1000 + u64::from(n), n, ALL)).collect();
    assert_eq!(fits(snapshots, &chain, 0), Ok(()));
    assert!(fits(snapshots, &chain, 30).is_err());
}

#[test]
fn the_kernel_takes_500_lower_directories() {
    let chain: Vec<Layer> = (1..=501).map(|id| local(id % 10)).collect();
    assert!(mount(Path::new("/r"), Access::View { id: 9 }, &chain[..500], false).is_ok());
    let error = mount(Path::new("/r"), Access::View { id: 9 }, &chain, false).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"it would need 501 lower directories, overlayfs takes 500");
}
