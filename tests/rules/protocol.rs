//! The remote-snapshot protocol (core/metadata/snapshot.go `createSnapshot`, core/unpack/unpacker.go).

use std::thread;

use containerd_snapshots::tonic::Code;

use testkit::{Chain, Daemon, Kind, Labels, Layer, Namespace, Pulled, Site, Style, extract_key, labels, sha256};

const BOTH: [Style; 2] = [Style::Old, Style::New];

fn image(site: &Site) -> Chain {
    let layers = [Layer::new("a", &[("a", "a")]), Layer::new("b", &[("b", "b")]), Layer::new("c", &[("c", "c")])];
    layers.iter().for_each(|layer| site.publish(layer));
    Chain::new("abc", &[&layers[0], &layers[1], &layers[2]])
}

#[test]
fn rule_02_rebase_is_refused_with_the_remedy() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let target = &image.ids()[1];
    let refused = client.prepare(&extract_key("default", 1, target), "", &image.labels(1, Style::New)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("rebase") && refused.message().contains("capabilities"), "{refused}");
    assert!(client.keys().is_empty() && daemon.ids().is_empty());
}

#[test]
fn rule_04_already_exists_only_for_a_target_that_is_held_on_this_parent() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    for style in BOTH {
        let mut namespace = Namespace::new(&client, &format!("{style:?}"), style);
        let pulled = namespace.pull(&image);
        assert!(pulled.iter().all(|layer| layer.in_place));
        // The same key shape and layer, without the label: an ordinary extraction.
        let mut labels = image.labels(0, style);
        labels.remove("containerd.io/snapshot.ref");
        let key = namespace.key(&format!("extract-9 {}", image.ids()[0]));
        client.prepare(&key, "", &labels).unwrap();
        client.remove(&key).unwrap();
        // A ref that is not the one of the key.
        let mut labels = image.labels(0, style);
        labels.insert("containerd.io/snapshot.ref".into(), image.ids()[1].clone());
        client.prepare(&key, "", &labels).unwrap();
        client.remove(&key).unwrap();
    }
    assert_eq!(client.keys().len(), 3, "the second pull found what the first one made");
}

#[test]
fn rule_04_a_local_commit_of_the_same_target_is_no_answer() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("local", &[("x", "y")]);
    let image = Chain::new("local", &[&layer]);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    assert_eq!(Namespace::new(&client, "one", Style::New).in_place(&image), [false]);
    assert_eq!(Namespace::new(&client, "two", Style::New).in_place(&image), [false], "downloaded again");
}

#[test]
fn rule_05_a_target_is_held_once_for_each_parent() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let (local, remote) = (Layer::new("local", &[("l", "l")]), Layer::new("remote", &[("r", "r")]));
    site.publish(&remote);
    let image = Chain::new("mixed", &[&local, &remote]);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let mut names = Vec::new();
    for style in BOTH {
        for namespace in ["one", "two"] {
            // The local layer below is another snapshot in each namespace.
            let pulled = Namespace::new(&client, &format!("{namespace}{style:?}"), style).pull(&image);
            assert_eq!(pulled.iter().map(|layer| layer.in_place).collect::<Vec<_>>(), [false, true]);
            assert_eq!(client.stat(&pulled[1].name).unwrap().parent, pulled[0].name);
            names.push(pulled[1].name.clone());
        }
    }
    names.dedup();
    assert_eq!(names.len(), 4);
    // On no parent they are shared.
    let alone = Chain::new("alone", &[&remote]);
    let first = Namespace::new(&client, "one", Style::New).pull(&alone);
    assert_eq!(Namespace::new(&client, "two", Style::Old).pull(&alone), first);
}

#[test]
fn rule_06_no_active_snapshot_is_left_under_the_key() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let target = &image.ids()[0];
    for number in 0..3 {
        let key = extract_key("default", number, target);
        assert_eq!(client.prepare(&key, "", &image.labels(0, Style::Old)).unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(client.stat(&key).unwrap_err().code(), Code::NotFound);
        assert_eq!(client.keys().len(), 1);
    }
    assert!(client.list(&["kind==active"]).unwrap().is_empty());
    client.cleanup().unwrap();
    assert_eq!(daemon.ids().len(), 1);
}

#[test]
fn rule_04_and_06_hold_for_clients_at_the_same_time() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let pulled: Vec<Vec<Pulled>> = thread::scope(|scope| {
        let pull = |n: usize| {
            let (daemon, image) = (&daemon, &image);
            scope.spawn(move || Namespace::new(&daemon.client(), &format!("n{n}"), BOTH[n % 2]).pull(image))
        };
        let threads: Vec<_> = (0..6).map(pull).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pulled.iter().all(|one| *one == pulled[0]), "{pulled:?}");
    let client = daemon.client();
    assert_eq!(client.keys().len(), 3);
    client.cleanup().unwrap();
    assert_eq!(daemon.ids().len(), 3, "the directories of those who came second are gone");
}

#[test]
fn rule_07_what_is_in_no_repository_is_downloaded() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let (a, b) = (Layer::new("a", &[("a", "a")]), Layer::new("b", &[("b", "b")]));
    site.publish(&a);
    let image = Chain::new("i", &[&a, &b]);
    let mut settings = site.settings();
    settings.repositories.insert(0, ("absent".into(), site.beside("absent"), "cvmfs", String::new()));
    let daemon = Daemon::start(&settings);
    let client = daemon.client();
    for style in BOTH {
        assert_eq!(Namespace::new(&client, &format!("{style:?}"), style).in_place(&image), [true, false]);
    }
}

#[test]
fn rule_08_only_extraction_keys_are_honoured() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let target = &image.ids()[0];
    // As the annotations of a pod reach the Prepare of its pause container.
    for (number, key) in [
        sha256("container"),
        format!("x extract-1 {target}"),
        format!("extract-1 {target} "),
        format!("extract-1 {}", image.ids()[1]),
        format!("pause/extract-1 {target}"),
        "extract-".into(),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k8s.io/{number}/{key}");
        client.prepare(&key, "", &image.labels(0, Style::Old)).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    assert!(client.list(&["kind==committed"]).unwrap().is_empty());
    client.view("k8s.io/99/v", "", &image.labels(0, Style::Old)).unwrap();
    // A client without the metadata layer.
    let key = format!("extract-1 {target}");
    assert_eq!(client.prepare(&key, "", &image.labels(0, Style::Old)).unwrap_err().code(), Code::AlreadyExists);
}

#[test]
fn rule_09_a_malformed_digest_is_not_remote() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let image = image(&site);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let target = image.ids()[0].clone();
    let good = image.labels(0, Style::Old)["containerd.io/snapshot/cri.layer-digest"].clone();
    let hex = good.strip_prefix("sha256:").unwrap();
    for (number, bad) in [
        "sha256:../..".to_owned(),
        "sha256:".to_owned(),
        "sha256".to_owned(),
        "a".to_owned(),
        ":".to_owned(),
        hex.to_owned(),
        hex[..8].to_owned(),
        format!("sha512:{hex}"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("{good}0"),
        format!("{good}/.."),
        format!(" {good}"),
        "\u{e4}".repeat(40),
    ]
    .into_iter()
    .enumerate()
    {
        for mut labels in [image.labels(0, Style::Old), Labels::new()] {
            labels.insert("containerd.io/snapshot.ref".into(), target.clone());
            labels.insert("containerd.io/snapshot/cri.layer-digest".into(), bad.clone());
            labels.insert("containerd.io/snapshot/cri.image-layers".into(), format!("{bad},,sha256:..,{bad}"));
            let key = extract_key("default", number as u64, &target);
            client.prepare(&key, "", &labels).unwrap_or_else(|error| panic!("{bad}: {error}"));
            client.remove(&key).unwrap();
        }
    }
    let no_digest = labels(&[("containerd.io/snapshot.ref", &target)]);
    client.prepare(&extract_key("default", 99, &target), "", &no_digest).unwrap();
    assert!(daemon.is_running());
    let stargz =
        labels(&[("containerd.io/snapshot.ref", &target), ("containerd.io/snapshot/remote/stargz.digest", &good)]);
    let answer = client.prepare(&extract_key("default", 100, &target), "", &stargz).unwrap_err();
    assert_eq!(answer.code(), Code::AlreadyExists, "the name that stargz's client gives it");
}
