//! The deletions of a layer: found once, found again when the layer changes, and never guessed.

use std::fs;
use std::time::Duration;

use crate::{none, pull_in_place, top};
use testkit::{Chain, Daemon, Kind, Layer, Mounted, Namespace, Site, Style, lowers};

fn layers() -> (Layer, Layer) {
    (
        Layer::new("low", &[("d/a", "a"), ("d/b", "b"), ("e/x", "x")]),
        Layer::new("high", &[("d/.wh.a", ""), ("e/.wh..wh..opq", ""), ("e/y", "y"), ("deep/er/z", "z")]),
    )
}

/// Directories that were listed.
fn listed(site: &Site) -> u64 {
    let operations = site.mock().stats()["operations"].clone();
    ["readdir", "readdirplus", "opendir"].iter().filter_map(|name| operations[name].as_u64()).sum()
}

on_both! {
    fn invalid_whiteouts_and_unreadable_directories_mean_a_download(kind) {
        let Some(site) = Site::new(kind) else { return };
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        for name in [".wh.", ".wh..", ".wh..."] {
            for directory in ["", "d/"] {
                let layer = Layer::new(&format!("{directory}{name}"), &[(&format!("{directory}{name}"), "")]);
                site.publish(&layer);
                // Extracted locally it is refused by containerd; here only the answer matters.
                let image = Chain::new("i", &[&layer]);
                let key = testkit::extract_key("default", 1, &image.ids()[0]);
                client.prepare(&key, "", &image.labels(0, Style::New)).unwrap();
                client.remove(&key).unwrap();
                let lines = daemon.lines(&["layer is downloaded", &layer.digest, "not a valid whiteout"]);
                assert_eq!(lines.len(), 1, "{name}");
            }
        }
    }

    fn a_walk_that_takes_too_long_goes_on_for_the_next_time(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let files: Vec<String> = (0..40).map(|n| format!("d{n}/f")).collect();
        let layer = Layer::new("wide", &files.iter().map(|file| (file.as_str(), "x")).collect::<Vec<_>>());
        site.publish(&layer);
        let mut settings = site.settings();
        settings.markers = "200ms";
        let daemon = Daemon::start(&settings);
        let client = daemon.client();
        let image = Chain::new("i", &[&layer]);
        site.mock().slow(Duration::from_millis(30));
        assert_eq!(Namespace::new(&client, "first", Style::New).in_place(&image), [false]);
        assert_eq!(daemon.lines(&["layer is downloaded", "try again later"]).len(), 1);
        site.mock().slow(Duration::ZERO);
        testkit::eventually("the walk ends", || Namespace::new(&client, "later", Style::New).in_place(&image) == [true]);
    }

    fn a_layer_does_not_wait_for_those_above_it(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let wide = |n: usize, width: usize| (0..n).map(|n| format!("d/{}/{n}/f", n % width)).collect::<Vec<_>>();
        let layer = |name: &str, files: &[String]| {
            Layer::new(name, &files.iter().map(|file| (file.as_str(), "x")).collect::<Vec<_>>())
        };
        let (low, high) = (layer("low", &wide(16, 4)), layer("high", &wide(800, 400)));
        site.publish(&low);
        site.publish(&high);
        let mut settings = site.settings();
        settings.markers = "5s";
        let daemon = Daemon::start(&settings);
        let client = daemon.client();
        site.mock().slow(Duration::from_millis(20));
        let image = Chain::new("i", &[&low, &high]);
        let key = testkit::extract_key("default", 1, &image.ids()[0]);
        let answer = client.prepare(&key, "", &image.labels(0, Style::New));
        site.mock().slow(Duration::ZERO);
        assert!(answer.is_err(), "{:?}", daemon.lines(&["layer is downloaded"]));
    }

    fn they_are_looked_for_once_also_after_a_restart(kind) {
        let Some(site) = Site::on_fuse(kind) else { return };
        let (low, high) = layers();
        site.publish(&low);
        site.publish(&high);
        let image = Chain::new("i", &[&low, &high]);
        let mut daemon = Daemon::start(&site.settings());
        let pulled = pull_in_place(&daemon.client(), &image);
        assert!(listed(&site) > 5);
        for _ in 0..2 {
            site.mock().reset_stats();
            daemon.restart();
            let client = daemon.client();
            assert_eq!(Namespace::new(&client, "other", Style::New).pull(&image), pulled);
            let mounts = client.prepare("k", top(&pulled), &none()).unwrap();
            assert_eq!(Mounted::new(&mounts).tree(), ["d/", "d/b", "deep/", "deep/er/", "deep/er/z", "e/", "e/y"]);
            client.remove("k").unwrap();
        }
        site.mock().reset_stats();
        daemon.client().view("v", top(&pulled), &none()).unwrap();
        // A repository of kind directory has its .layers opened, as a sign of life.
        assert!(site.mock().stats()["operations"]["readdir"].as_u64().unwrap_or(0) == 0, "{}", site.mock().stats());
    }
}

/// Every call takes a path of less than 4096 bytes; a layer can be deeper.
#[test]
fn a_deletion_that_is_too_deep_for_a_cover_means_a_download() {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("deep", &[("x", "x")]);
    site.publish(&layer);
    let mut directory = std::os::fd::OwnedFd::from(fs::File::open(site.backing().join(layer.path())).unwrap());
    for length in [254; 16].into_iter().chain([13]) {
        let name = "d".repeat(length);
        mkdirat(&directory, name.as_str(), Mode::S_IRWXU).unwrap();
        directory = openat(&directory, name.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    drop(openat(&directory, ".wh.x", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap());
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let image = Chain::new("i", &[&layer]);
    assert_eq!(Namespace::new(&client, "default", Style::New).in_place(&image), [false]);
    assert_eq!(daemon.lines(&["layer is downloaded", &layer.digest, "cannot be made"]).len(), 1, "{}", daemon.log());
    assert_eq!(daemon.ids().len(), 1, "nothing is left over");
}

/// As when `CVMFS_CLAIM_OWNERSHIP` is changed: the same revision and catalogs, other owners.
#[test]
fn a_layer_that_is_mounted_with_other_owners_is_looked_at_again() {
    use std::os::unix::fs::{MetadataExt, chown};
    let Some(mut site) = Site::new(Kind::Cvmfs) else { return };
    let layer = Layer::new("a", &[("x", "x")]);
    site.publish(&layer);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let image = Chain::new("i", &[&layer]);
    let pulled = pull_in_place(&client, &image);
    for owner in [7, 0] {
        site.mock.as_mut().unwrap().quit();
        chown(site.backing().join(layer.path()), Some(owner), Some(owner)).unwrap();
        site.remount();
        let mounts = client.view(&format!("v{owner}"), top(&pulled), &none()).unwrap();
        let root = fs::metadata(Mounted::new(&mounts).path()).unwrap();
        assert_eq!((root.uid(), root.gid()), (owner, owner));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the target of a link is what is remembered")]
fn a_layer_that_is_published_again_is_looked_at_again() {
    let Some(site) = Site::new(Kind::Cvmfs) else { return };
    let (low, high) = layers();
    site.publish(&low);
    site.publish(&high);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = pull_in_place(&client, &Chain::new("i", &[&low, &high]));
    let old = client.prepare("k", top(&pulled), &none()).unwrap();
    let running = Mounted::new(&old);
    assert!(running.read("d/b").is_some() && running.read("d/a").is_none());
    // Now it deletes d/b, too.
    fs::write(site.holder(&high).join("layerfs/d/.wh.b"), "").unwrap();
    site.mock().republish(&high.digest);
    site.mock().hide(&high.digest);
    site.mock().show(&high.digest);
    let cover = fs::canonicalize(&lowers(&old)[0]).unwrap();
    let before = fs::metadata(&cover).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap();
    let mounts = client.prepare("k2", top(&pulled), &none()).unwrap();
    assert_ne!(fs::metadata(&cover).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap(), before, "replaced");
    let new = Mounted::new(&mounts);
    assert_eq!(new.tree(), ["d/", "deep/", "deep/er/", "deep/er/z", "e/", "e/y"]);
    assert!(running.read("d/b").is_some(), "what runs keeps what it was started with");
    assert!(running.read("d/.wh.a").is_none());
}

#[test]
fn a_layer_that_changed_in_a_directory_is_looked_at_again() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let (low, high) = layers();
    site.publish(&low);
    site.publish(&high);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = pull_in_place(&client, &Chain::new("i", &[&low, &high]));
    client.prepare("k", top(&pulled), &none()).unwrap();
    fs::write(site.holder(&high).join("layerfs/.wh.d"), "").unwrap();
    let mounts = client.view("v", top(&pulled), &none()).unwrap();
    assert_eq!(Mounted::new(&mounts).tree(), ["d/", "deep/", "deep/er/", "deep/er/z", "e/", "e/y"]);
}
