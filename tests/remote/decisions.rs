//! Used in place or downloaded: which repository, and what the log says.

use std::fs;
use std::os::unix::fs::symlink;

use crate::{none, published, pull_in_place, top};
use testkit::{Chain, Daemon, Layer, Namespace, Settings, Site, Style, extract_key, lowers};

on_both! {
    fn layers_are_used_in_place(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        for style in [Style::Old, Style::New] {
            assert_eq!(Namespace::new(&client, "default", style).in_place(&image), [true, true, true]);
        }
        for layer in &image.layers {
            let lines = daemon.lines(&["layer is used in place", &layer.digest]);
            assert!(!lines.is_empty() && lines[0].contains("main") && lines[0].contains(&image.reference), "{lines:?}");
        }
        let mounts = client.prepare("k", &testkit::Namespace::new(&client, "x", Style::Old).pull(&image)[2].name, &none()).unwrap();
        let links: Vec<_> = lowers(&mounts).into_iter().filter(|lower| lower.is_symlink()).collect();
        let targets: Vec<_> = links.iter().map(|link| fs::read_link(link).unwrap()).collect();
        let expected: Vec<_> = image.layers.iter().rev().map(|layer| site.path().join(layer.path())).collect();
        assert_eq!(targets, expected);
    }

    fn a_missing_layer_is_downloaded_and_one_line_says_why(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let missing = Layer::new("missing", &[("m", "m")]);
        let image = Chain::new("partly", &[&image.layers[0], &missing, &image.layers[2]]);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = Namespace::new(&client, "default", Style::New).pull(&image);
        assert_eq!(pulled.iter().map(|layer| layer.in_place).collect::<Vec<_>>(), [true, false, true]);
        let lines = daemon.lines(&["INFO", &missing.digest]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in ["layer is downloaded", &image.reference, "main", "does not have it"] {
            assert!(lines[0].contains(part), "{part}: {lines:?}");
        }
        // Published later: the next pull has it.
        site.publish(&missing);
        assert_eq!(Namespace::new(&client, "later", Style::Old).in_place(&image), [true, true, true]);
    }

    fn a_layer_that_leaves_out_directories_is_used_as_the_lowest_one_only(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let partly = Layer::new("partly", &[("var/cache/x", "x")]);
        site.publish(&partly);
        let record = site.backing().join(partly.path()).with_file_name(".metadata").join("unlisted-directories");
        fs::write(record, b"var\0var/cache\0").unwrap();
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let above = Chain::new("above", &[&image.layers[0], &partly]);
        let pulled = Namespace::new(&client, "default", Style::New).pull(&above);
        assert_eq!(pulled.iter().map(|layer| layer.in_place).collect::<Vec<_>>(), [true, false]);
        assert_eq!(daemon.lines(&["layer is downloaded", &partly.digest, "leaves out directories"]).len(), 1);
        let lowest = Chain::new("lowest", &[&partly, &image.layers[0]]);
        assert_eq!(Namespace::new(&client, "default", Style::Old).in_place(&lowest), [true, true]);
    }

    fn repositories_are_searched_in_their_order(kind) {
        let (Some(first), Some(second)) = (Site::new(kind), Site::new(kind)) else { return };
        let (both, one) = (Layer::new("both", &[("x", "x")]), Layer::new("one", &[("y", "y")]));
        first.publish(&both);
        second.publish(&both);
        second.publish(&one);
        let repositories = vec![
            ("absent".to_owned(), first.beside("absent"), first.kind_name(), String::new()),
            first.entry("first", ""),
            second.entry("second", ""),
        ];
        let daemon = Daemon::start(&Settings { repositories, ..Settings::default() });
        let client = daemon.client();
        let pulled = pull_in_place(&client, &Chain::new("i", &[&one, &both]));
        let mounts = client.prepare("k", top(&pulled), &none()).unwrap();
        let targets: Vec<_> = lowers(&mounts).iter().filter_map(|lower| fs::read_link(lower).ok()).collect();
        assert_eq!(targets, [first.path().join(both.path()), second.path().join(one.path())]);

        // The layer leaves the first: the chain goes on with the second.
        first.hide(&both);
        assert_eq!(client.mounts("k").unwrap(), mounts);
        let targets: Vec<_> = lowers(&mounts).iter().filter_map(|lower| fs::read_link(lower).ok()).collect();
        assert_eq!(targets, [second.path().join(both.path()), second.path().join(one.path())]);
    }

    fn a_repository_in_trouble_does_not_hide_the_next(kind) {
        let (Some(mut first), Some(second)) = (Site::on_fuse(kind), Site::new(kind)) else { return };
        let layers: Vec<_> = (0..4).map(|n| Layer::new(&n.to_string(), &[("x", "x")])).collect();
        layers.iter().for_each(|layer| second.publish(layer));
        let repositories = vec![first.entry("first", ""), second.entry("second", "")];
        let daemon = Daemon::start(&Settings { repositories, ..Settings::short_limits() });
        let client = daemon.client();
        let pull = |index: usize| {
            let image = Chain::new(&index.to_string(), &[&layers[index]]);
            assert_eq!(Namespace::new(&client, "default", Style::New).in_place(&image), [true], "{index}");
        };
        pull(0);
        first.mock().hang();
        pull(1);
        first.mock().unhang();
        first.mock.as_mut().unwrap().kill();
        pull(2);
        first.unmount();
        pull(3);
        assert!(!daemon.lines(&["WARN", "first", "is disconnected"]).is_empty(), "the log says so once it changes");
    }

    fn what_leads_through_a_link_or_is_no_directory_is_not_used(kind) {
        let Some(site) = Site::new(kind) else { return };
        let names = ["fan", "holder", "layerfs", "file", "record"];
        let layers: Vec<_> = names.iter().map(|name| Layer::new(name, &[("x", "x")])).collect();
        layers.iter().for_each(|layer| layer.publish(site.backing()));
        let outside = site.beside("outside");
        fs::create_dir_all(&outside).unwrap();
        let swap = |path: &std::path::Path, name: &str| {
            fs::rename(path, outside.join(name)).unwrap();
            symlink(outside.join(name), path).unwrap();
        };
        let place = |index: usize| site.backing().join(layers[index].path());
        swap(place(0).parent().unwrap().parent().unwrap(), "fan");
        swap(place(1).parent().unwrap(), "holder");
        swap(&place(2), "layerfs");
        fs::rename(place(3), outside.join("file")).unwrap();
        fs::write(place(3), "a file").unwrap();
        swap(&place(4).with_file_name(".metadata"), "record");
        if let Some(mock) = &site.mock {
            mock.revision();
        }
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        for layer in &layers {
            let image = Chain::new("i", &[layer]);
            assert_eq!(Namespace::new(&client, "default", Style::New).in_place(&image), [false], "{layer:?}");
            let lines = daemon.lines(&["layer is downloaded", &layer.digest]);
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    fn a_held_layer_whose_repository_is_gone_is_downloaded_and_listed_after_the_healthy_one(kind) {
        let Some(mut site) = Site::new(kind) else { return };
        let image = published(&site);
        let image = Chain::new("one", &[&image.layers[0]]);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let held = pull_in_place(&client, &image);
        site.unmount();
        let local = Namespace::new(&client, "other", Style::New).pull(&image);
        assert!(!local[0].in_place);
        let namespace = Namespace::new(&client, "third", Style::New);
        assert_eq!(namespace.find(&image.ids()[0], "").name, local[0].name, "the healthy one comes first");
        site.remount();
        assert_eq!(Namespace::new(&client, "third", Style::New).pull(&image), held);
        assert_eq!(client.list(&[&format!("labels.\"containerd.io/snapshot.ref\"=={}", image.ids()[0])]).unwrap().len(), 2);
    }

    fn annotations_of_a_pod_do_not_reach_a_repository(kind) {
        let Some(site) = Site::new(kind) else { return };
        let image = published(&site);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        client.committed("k8s.io/1/pause", "");
        let mut labels = image.labels(0, Style::New);
        labels.insert("containerd.io/snapshot/parent-chain-id".into(), image.ids()[1].clone());
        let mounts = client.prepare("k8s.io/2/0123456789abcdef", "k8s.io/1/pause", &labels).unwrap();
        assert_eq!(lowers(&mounts).len(), 1);
        // An extraction key for a target that the labels do not ask for.
        client.prepare(&extract_key("default", 1, &image.ids()[1]), "k8s.io/1/pause", &labels).unwrap();
        assert_eq!(client.list(&["kind==committed"]).unwrap().len(), 1);
    }
}
