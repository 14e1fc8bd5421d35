//! Usage (plugins/snapshots/overlay/overlay.go `Usage`; continuity: fs/du_unix.go).

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::start;
use testkit::{Chain, Daemon, Kind, Labels, Layer, Namespace, Site, Style, upper};

#[test]
fn active_is_measured_committed_is_remembered_and_a_view_has_none() {
    let Some((_daemon, client)) = start() else { return };
    let none = Labels::new();
    let files = upper(&client.prepare("k", "", &none).unwrap());
    let root = i64::try_from(fs::metadata(&files).unwrap().blocks() * 512).unwrap();
    assert_eq!(client.usage("k").unwrap(), (root, 1), "the root counts");
    fs::write(files.join("a"), vec![1; 100_000]).unwrap();
    fs::hard_link(files.join("a"), files.join("b")).unwrap();
    std::os::unix::fs::symlink("/", files.join("link")).unwrap();
    fs::File::open(files.join("a")).unwrap().sync_all().unwrap();
    let blocks = |path| fs::symlink_metadata(files.join(path)).unwrap().blocks() * 512;
    let expected = i64::try_from(blocks("") + blocks("a") + blocks("link")).unwrap();
    assert_eq!(client.usage("k").unwrap(), (expected, 3), "a hard link counts once, a link is not followed");
    client.commit("c", "k", &none).unwrap();
    fs::write(files.join("later"), vec![1; 100_000]).unwrap();
    assert_eq!(client.usage("c").unwrap(), (expected, 3), "the value of the commit");
    client.view("v", "c", &none).unwrap();
    client.view("v0", "", &none).unwrap();
    assert_eq!((client.usage("v").unwrap(), client.usage("v0").unwrap()), ((0, 0), (0, 0)));
    client.prepare("k2", "c", &none).unwrap();
    assert_eq!(client.usage("k2").unwrap(), (root, 1), "without the parents");
}

#[test]
fn a_layer_in_place_takes_no_disk() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("a", &[("file", &"x".repeat(50_000))]);
    site.publish(&layer);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = Namespace::new(&client, "default", Style::New).pull(&Chain::new("i", &[&layer]));
    assert!(pulled[0].in_place);
    assert_eq!(client.usage(&pulled[0].name).unwrap(), (0, 0));
}
