//! What a container sees: the image, and nothing of how it is stored.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::{none, pull_in_place, top};
use testkit::{Chain, Daemon, Kind, Layer, Mock, Mounted, Namespace, Options, Site, Style};

fn image(site: &Site) -> Chain {
    let empty = Layer::new("empty", &[]);
    let base = Layer::new(
        "base",
        &[
            ("etc/passwd", "base"),
            ("etc/old", "1"),
            ("opt/a/deep", "2"),
            ("opt/b", "3"),
            ("gone", "4"),
            ("kept", "5"),
            ("dir/x", "6"),
            ("file", "7"),
        ],
    );
    let deletes = Layer::new(
        "deletes",
        &[
            (".wh.gone", ""),
            ("etc/.wh.old", ""),
            ("opt/.wh..wh..opq", ""),
            ("opt/new", "n"),
            (".wh.dir", ""),
            ("dir/y", "y"),
            (".wh.file", ""),
            ("file/now-a-directory", "z"),
            (".wh..wh.plnk/inner", "aufs"),
            (".wh..wh.aufs", "aufs"),
            (".wh.never-there", ""),
        ],
    );
    let again = Layer::new("again", &[("gone", "back"), ("opt/b", "back")]);
    for layer in [&empty, &base, &deletes, &again] {
        site.publish(layer);
    }
    Chain::new("i", &[&empty, &base, &empty, &deletes, &again, &empty])
}

const TREE: [&str; 14] = [
    "dir/",
    "dir/y",
    "etc/",
    "etc/passwd",
    "file/",
    "file/now-a-directory",
    "gone",
    "kept",
    "opt/",
    "opt/b",
    "opt/new",
    "",
    "",
    "",
];

fn tree() -> Vec<&'static str> {
    TREE.into_iter().filter(|path| !path.is_empty()).collect()
}

on_both! {
    fn deletions_are_honoured_and_markers_are_hidden(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = image(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &image);
        let container = Mounted::new(&client.prepare("k", top(&pulled), &none()).unwrap());
        let view = Mounted::new(&client.view("v", top(&pulled), &none()).unwrap());
        for mounted in [&container, &view] {
            assert_eq!(mounted.tree(), tree());
            assert_eq!(mounted.read("gone").as_deref(), Some("back"));
            for hidden in [".cvmfscatalog", ".wh.gone", "opt/.wh..wh..opq", "etc/old", "opt/a", ".wh..wh.aufs", "dir/x"] {
                assert!(mounted.path().join(hidden).symlink_metadata().is_err(), "{hidden}");
            }
        }
        assert!(fs::write(view.path().join("x"), "").is_err(), "read-only");
        fs::write(container.path().join("etc/passwd"), "changed").unwrap();
        fs::write(container.path().join("opt/a"), "a file now").unwrap();
        fs::remove_dir_all(container.path().join("dir")).unwrap();
        fs::create_dir(container.path().join("dir")).unwrap();
        fs::rename(container.path().join("kept"), container.path().join("moved")).unwrap();
        let expected = container.tree();
        drop(container);
        let container = Mounted::new(&client.mounts("k").unwrap());
        assert_eq!(container.tree(), expected);
        drop(container);
        client.commit("c", "k", &none()).unwrap();
        assert_eq!(Mounted::new(&client.view("vc", "c", &none()).unwrap()).tree(), expected);
        assert_eq!(Mounted::new(&client.prepare("kc", "c", &none()).unwrap()).tree(), expected);

        // A view of every part of the chain, one layer alone among them.
        for (index, layer) in pulled.iter().enumerate() {
            let view = Mounted::new(&client.view(&format!("v{index}"), &layer.name, &none()).unwrap());
            assert!(view.tree().iter().all(|path| !path.contains(".wh.") && !path.contains(".cvmfs")), "{:?}", view.tree());
            match index {
                0 => assert!(view.tree().is_empty()),
                1 | 2 => assert_eq!(view.read("gone").as_deref(), Some("4")),
                _ => assert_eq!(view.read("opt/a/deep"), None),
            }
        }
    }

    fn local_and_remote_layers_mix(kind) {
        let Some(site) = Site::new(kind) else { return };
        let layers = image(&site).layers;
        // The same image, with every subset of two of its layers not in the repository.
        for (index, missing) in [[1, 3], [3, 4], [1, 4]].into_iter().enumerate() {
            let daemon = Daemon::start(&site.settings());
            let client = daemon.client();
            let renamed: Vec<Layer> = layers.iter().enumerate().map(|(n, layer)| {
                let fresh = Layer::new(&format!("{index} {n}"), &[]);
                if missing.contains(&n) { Layer { files: layer.files.clone(), ..fresh } } else { layer.clone() }
            }).collect();
            let image = Chain::new("mixed", &renamed.iter().collect::<Vec<_>>());
            let pulled = Namespace::new(&client, "default", Style::New).pull(&image);
            assert_eq!(pulled.iter().filter(|layer| !layer.in_place).count(), 2);
            let is_local = |n: usize| missing.contains(&n);
            let expected: Vec<_> = tree().into_iter().map(str::to_owned).collect();
            let seen = Mounted::new(&client.prepare("k", top(&pulled), &none()).unwrap()).tree();
            // The test's own extraction leaves aufs' files where it unpacks them.
            let seen: Vec<_> = seen.into_iter().filter(|path| !(is_local(3) && path.contains("wh."))).collect();
            assert_eq!(seen, expected, "{missing:?}");
        }
    }

    fn an_opaque_root_ends_the_image(kind) {
        let Some(site) = Site::new(kind) else { return };
        let base = Layer::new("base", &[("a", "a"), ("d/b", "b")]);
        let fresh = Layer::new("fresh", &[(".wh..wh..opq", ""), ("d/new", "n")]);
        let above = Layer::new("above", &[("e", "e")]);
        [&base, &fresh, &above].into_iter().for_each(|layer| site.publish(layer));
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &Chain::new("i", &[&base, &fresh, &above]));
        assert_eq!(Mounted::new(&client.view("v", top(&pulled), &none()).unwrap()).tree(), ["d/", "d/new", "e"]);
        assert_eq!(Mounted::new(&client.prepare("k", top(&pulled), &none()).unwrap()).tree(), ["d/", "d/new", "e"]);
        assert_eq!(Mounted::new(&client.view("w", &pulled[1].name, &none()).unwrap()).tree(), ["d/", "d/new"]);
    }

    fn directories_keep_their_attributes(kind) {
        let Some(site) = Site::new(kind) else { return };
        let (base, layer) = (Layer::new("base", &[("tmp/a", "a")]), Layer::new("l", &[("tmp/.wh.a", ""), ("tmp/b", "b")]));
        base.publish(site.backing());
        layer.publish(site.backing());
        let place = site.backing().join(layer.path());
        std::os::unix::fs::chown(place.join("tmp"), Some(12), Some(34)).unwrap();
        fs::set_permissions(place.join("tmp"), PermissionsExt::from_mode(0o3777)).unwrap();
        std::os::unix::fs::chown(&place, Some(56), Some(78)).unwrap();
        fs::set_permissions(&place, PermissionsExt::from_mode(0o751)).unwrap();
        site.published(&base);
        site.published(&layer);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &Chain::new("i", &[&base, &layer]));
        let view = Mounted::new(&client.view("v", top(&pulled), &none()).unwrap());
        let of = |path: &str| fs::metadata(view.path().join(path)).map(|m| (m.uid(), m.gid(), m.mode() & 0o7777)).unwrap();
        assert_eq!((of(""), of("tmp")), ((56, 78, 0o751), (12, 34, 0o3777)));
        let container = Mounted::new(&client.prepare("k", top(&pulled), &none()).unwrap());
        let root = fs::metadata(container.path()).unwrap();
        assert_eq!((root.uid(), root.gid()), (56, 78), "the owner of the parent's root");
    }
}

#[test]
fn catalogs_below_the_root_are_hidden() {
    let Some(mut site) = Site::new(Kind::Cvmfs) else { return };
    // The mock puts catalogs into d and e.
    let layer = Layer::new("l", &[("c/f", ""), ("d/f", ""), ("e/f", "")]);
    layer.publish(site.backing());
    // Another mock in the place of the first, of a publisher with automatic catalogs.
    drop(site.mock.take());
    let options = Options { autocatalogs: true, ..Options::default() };
    site.mock = Some(Mock::start(site.backing(), &site.beside("repository"), options));
    assert!(walkdir::WalkDir::new(site.path()).into_iter().any(|entry| {
        let entry = entry.unwrap();
        entry.file_name() == ".cvmfsautocatalog"
    }));
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = pull_in_place(&client, &Chain::new("i", &[&layer]));
    let view = Mounted::new(&client.view("v", top(&pulled), &none()).unwrap());
    assert_eq!(view.tree(), ["c/", "c/f", "d/", "d/f", "e/", "e/f"]);
}
