//! The mounts (plugins/snapshots/overlay/overlay.go `mounts`; core/mount/mount_linux.go).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::start;
use testkit::{Chain, Daemon, Kind, Labels, Layer, Mounted, Namespace, Site, Style, labels, lowers, option, upper};

#[test]
fn rule_03_mappings_give_the_owner_and_no_mount_option() {
    let Some((_daemon, client)) = start() else { return };
    client.committed("base", "");
    let mapped = labels(&[
        ("containerd.io/snapshot/uidmapping", "0:100000:65536"),
        ("containerd.io/snapshot/gidmapping", "0:200000:65536"),
    ]);
    let mounts = client.prepare("k", "base", &mapped).unwrap();
    let root = fs::metadata(upper(&mounts)).unwrap();
    assert_eq!((root.uid(), root.gid()), (100_000, 200_000));
    assert!(option(&mounts, "uidmap").is_none() && option(&mounts, "gidmap").is_none());
}

#[test]
fn the_annotations_of_an_image_do_not_give_its_layers_an_owner() {
    let Some((_daemon, client)) = start() else { return };
    let image = Chain::new("i", &[&Layer::new("a", &[])]);
    let mut annotated = image.labels(0, Style::New);
    annotated.insert("containerd.io/snapshot/uidmapping".into(), "0:1000:1".into());
    annotated.insert("containerd.io/snapshot/gidmapping".into(), "0:1000:1".into());
    let key = testkit::extract_key("default", 1, &image.ids()[0]);
    let root = fs::metadata(upper(&client.prepare(&key, "", &annotated).unwrap())).unwrap();
    assert_eq!((root.uid(), root.gid()), (0, 0));
}

#[test]
fn rule_10_prepare_never_answers_read_only() {
    let Some((_daemon, client)) = start() else { return };
    client.committed("c1", "");
    client.committed("c2", "c1");
    for (key, parent) in [("default/1/extract-1 sha256:x", ""), ("k0", ""), ("k1", "c1"), ("k2", "c2")] {
        let mounts = client.prepare(key, parent, &Labels::new()).unwrap();
        assert!(!mounts.iter().any(|mount| mount.options.iter().any(|option| option == "ro")), "{mounts:?}");
        assert_eq!(client.mounts(key).unwrap(), mounts);
    }
}

#[test]
fn rule_11_the_kind_of_mount_follows_from_the_number_of_parents() {
    let Some((daemon, client)) = start() else { return };
    client.committed("c1", "");
    client.committed("c2", "c1");
    let none = Labels::new();
    let bind = |mode: &str| ("bind".to_owned(), vec![mode.to_owned(), "rbind".to_owned()]);
    let form =
        |mounts: &[containerd_snapshots::api::types::Mount]| (mounts[0].r#type.clone(), mounts[0].options.clone());
    let view0 = client.view("v0", "", &none).unwrap();
    assert_eq!(form(&view0), bind("ro"));
    assert!(testkit::names(view0[0].source.as_ref()).is_empty());
    let view1 = client.view("v1", "c1", &none).unwrap();
    assert_eq!(form(&view1), bind("ro"));
    let view2 = client.view("v2", "c2", &none).unwrap();
    assert_eq!((view2[0].r#type.as_str(), lowers(&view2).len()), ("overlay", 2));
    assert_eq!(lowers(&view2)[1].to_str(), Some(view1[0].source.as_str()));
    assert!(option(&view2, "upperdir").is_none() && option(&view2, "workdir").is_none());
    assert_eq!(form(&client.prepare("k0", "", &none).unwrap()), bind("rw"));
    let active1 = client.prepare("k1", "c1", &none).unwrap();
    assert_eq!((active1[0].r#type.as_str(), active1[0].source.as_str()), ("overlay", "overlay"));
    assert_eq!(lowers(&active1).len(), 1);
    for (key, mounts) in [("v0", view0), ("v1", view1), ("v2", view2), ("k1", active1)] {
        assert_eq!(client.mounts(key).unwrap(), mounts);
        let _mounted = Mounted::new(&mounts);
    }
    drop(daemon);
}

#[test]
fn rule_11_the_root_of_a_new_snapshot_is_0755_and_belongs_to_the_parents_owner() {
    let Some((_daemon, client)) = start() else { return };
    let none = Labels::new();
    let root = upper(&client.prepare("k", "", &none).unwrap());
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o755);
    std::os::unix::fs::chown(&root, Some(7), Some(8)).unwrap();
    fs::set_permissions(&root, PermissionsExt::from_mode(0o700)).unwrap();
    client.commit("c", "k", &none).unwrap();
    let child = fs::metadata(upper(&client.prepare("k", "c", &none).unwrap())).unwrap();
    assert_eq!((child.uid(), child.gid(), child.mode() & 0o7777), (7, 8, 0o755));
}

#[test]
fn rule_12_one_mount_with_separate_options() {
    let Some((daemon, client)) = start() else { return };
    client.committed("c1", "");
    client.committed("c2", "c1");
    let mounts = client.prepare("k", "c2", &Labels::new()).unwrap();
    assert_eq!((mounts.len(), mounts[0].target.as_str()), (1, ""));
    let names: Vec<_> = mounts[0].options.iter().map(|option| option.split('=').next().unwrap()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| *name != "index").collect();
    assert_eq!(names, ["workdir", "upperdir", "lowerdir"]);
    let nearest = client.view("v", "c1", &Labels::new()).unwrap()[0].source.clone();
    assert_eq!(lowers(&mounts).last().unwrap().to_str(), Some(nearest.as_str()), "the lowest is last");
    for directory in lowers(&mounts) {
        assert!(directory.starts_with(daemon.snapshots()) && directory.is_dir());
    }
    let mounted = Mounted::new(&mounts);
    fs::write(mounted.path().join("x"), "y").unwrap();
    assert_eq!(fs::read_to_string(upper(&mounts).join("x")).unwrap(), "y");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the targets of links are what is compared")]
fn rule_13_a_layer_that_repeats_is_listed_once() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let (a, empty) = (Layer::new("a", &[("a", "a")]), Layer::new("empty", &[]));
    site.publish(&a);
    site.publish(&empty);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let mut namespace = Namespace::new(&client, "default", Style::New);
    let pulled = namespace.pull(&Chain::new("i", &[&empty, &a, &empty, &empty]));
    assert!(pulled.iter().all(|layer| layer.in_place));
    for mounts in [
        client.prepare("k", &pulled[3].name, &Labels::new()).unwrap(),
        client.view("v", &pulled[3].name, &Labels::new()).unwrap(),
    ] {
        let mut targets: Vec<_> = lowers(&mounts).iter().map(|lower| lower.canonicalize().unwrap()).collect();
        let all = targets.len();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), all, "{mounts:?}");
        assert_eq!(Mounted::new(&mounts).tree(), ["a"]);
    }
    // One layer twice.
    let twice = namespace.pull(&Chain::new("j", &[&empty, &empty]));
    assert_eq!(Mounted::new(&client.view("w", &twice[1].name, &Labels::new()).unwrap()).tree(), [""; 0]);
}

#[test]
fn rule_14_lower_directories_are_short_and_have_a_common_parent() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let remote: Vec<_> =
        (0..60).map(|n| Layer::new(&format!("r{n}"), &[("f", &n.to_string()), (".wh.gone", "")])).collect();
    remote.iter().for_each(|layer| layer.publish(site.backing()));
    let local: Vec<_> = (0..8).map(|n| Layer::new(&format!("l{n}"), &[(&format!("l{n}"), "x")])).collect();
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let mixed: Vec<&Layer> = remote[..52].iter().chain(&local).chain(&remote[52..]).collect();
    let pulled = Namespace::new(&client, "default", Style::New).pull(&Chain::new("large", &mixed));
    let mounts = client.prepare("k", &pulled.last().unwrap().name, &Labels::new()).unwrap();
    let lowers = lowers(&mounts);
    assert!(pulled.iter().filter(|layer| layer.in_place).count() >= 52, "{pulled:?}");
    let relative: usize =
        lowers.iter().map(|lower| lower.strip_prefix(daemon.snapshots()).unwrap().as_os_str().len() + 1).sum();
    assert!(relative < 4096 - 512, "{relative}");
}
