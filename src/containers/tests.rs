use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Kind, Verify};

const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";

fn repositories() -> Vec<Repository> {
    let repository = |name: &str, path: &str| Repository {
        name: name.to_owned(),
        path: path.into(),
        kind: Kind::Directory,
        verify: Verify::IfKnown,
    };
    vec![repository("a", "/cvmfs/a"), repository("nfs", "/srv/layers")]
}

/// Snapshots 1 to 3 lie in repositories, 4 in one that is not configured any more; the others are local.
fn read_link(link: &Path) -> Option<PathBuf> {
    let repository = match link.to_str()? {
        "/lib/s n/snapshots/1/fs" | "/lib/s n/snapshots/2/fs" => "/cvmfs/a",
        "/lib/s n/snapshots/3/fs" => "/srv/layers",
        "/lib/s n/snapshots/4/fs" => "/cvmfs/old",
        _ => return None,
    };
    Some(format!("{repository}/.layers/ab/abcd/layerfs").into())
}

fn found(lines: &[String]) -> Vec<Container> {
    let lines = lines.iter().enumerate().map(|(number, rest)| format!("{number} 1 0:{number} / {rest}\n"));
    in_table(lines.collect::<String>().as_bytes(), Path::new("/lib/s n"), &repositories(), read_link)
}

#[test]
fn containers_are_found_with_their_repositories() {
    let snapshots = "/lib/s\\040n/snapshots";
    let upper = |id: u32| format!("upperdir={snapshots}/{id}/fs,workdir={snapshots}/{id}/work");
    let found = found(&[
        // Absolute and relative lower directories, and one option for each.
        format!(
            "{BUNDLES}/default/aaa/rootfs rw - overlay overlay rw,lowerdir={snapshots}/2/c:{snapshots}/2/fs:{snapshots}/1/fs,{}",
            upper(9)
        ),
        format!("{BUNDLES}/k8s.io/bbb/rootfs rw - overlay overlay rw,lowerdir=3/c:3/fs:2/fs:7/fs,{}", upper(10)),
        format!("/mnt/view ro shared:1 - overlay overlay ro,lowerdir+={snapshots}/4/c,lowerdir+={snapshots}/4/fs"),
        // All layers local; somebody else's overlay; another file system.
        format!("{BUNDLES}/default/ccc/rootfs rw - overlay overlay rw,lowerdir={snapshots}/7/fs,{}", upper(11)),
        format!("{BUNDLES}/default/ddd/rootfs rw - overlay overlay rw,lowerdir=1/fs,upperdir=/other/1/fs"),
        format!("{BUNDLES}/default/eee/rootfs rw - ext4 /dev/sda rw,lowerdir={snapshots}/1/fs"),
    ]);
    let seen: Vec<_> = found
        .iter()
        .map(|c| (c.namespace.as_deref(), c.id.as_deref(), c.repositories.join(","), c.layers_in_place))
        .collect();
    assert_eq!(
        seen,
        [
            (None, None, "/cvmfs/old".to_owned(), 1),
            (Some("default"), Some("aaa"), "a".to_owned(), 2),
            (Some("k8s.io"), Some("bbb"), "a,nfs".to_owned(), 2),
        ]
    );
}

#[test]
fn one_overlay_at_two_places_is_one_container() {
    let line = |place: &str| {
        format!("1 1 0:99 / {place} rw - overlay overlay rw,lowerdir=1/fs,upperdir=/lib/s\\040n/snapshots/9/fs\n")
    };
    let table = line(&format!("{BUNDLES}/default/aaa/rootfs")) + &line("/somewhere/else");
    let found = in_table(table.as_bytes(), Path::new("/lib/s n"), &repositories(), read_link);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id.as_deref(), Some("aaa"));
}

#[test]
fn names_come_from_the_bundle() {
    let bundle = tempfile::tempdir().unwrap();
    let root = bundle.path().join("rootfs");
    for (annotations, expected) in [
        (serde_json::json!({"nerdctl/name": "web"}), Some("web")),
        (
            serde_json::json!({
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-name": "web-1",
                "io.kubernetes.cri.container-name": "app",
            }),
            Some("shop/web-1 app"),
        ),
        (
            serde_json::json!({
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-name": "web-1",
            }),
            Some("shop/web-1"),
        ),
        (serde_json::json!({}), None),
    ] {
        let spec = serde_json::json!({ "ociVersion": "1.1.0", "annotations": annotations });
        std::fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        assert_eq!(name(&root).as_deref(), expected);
    }
    std::fs::write(bundle.path().join("config.json"), "{}").unwrap();
    assert_eq!(name(&root), None);
    assert_eq!(name(Path::new("/nonexistent/rootfs")), None);
}

#[test]
fn a_look_says_what_is_wrong_as_a_number() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(look(directory.path()), 0);
    assert_eq!(look(&directory.path().join("missing")), nix::errno::Errno::ENOENT as u8);
}
