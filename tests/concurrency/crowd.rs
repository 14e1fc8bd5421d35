//! Many clients at once get what one after the other would get.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use containerd_snapshots::tonic::Code;

use crate::assert_no_orphan;
use testkit::{
    Chain, Client, Daemon, Kind, Labels, Layer, Mounted, Namespace, Pulled, Site, Style, extract_key, target_filter,
};

const CLIENTS: usize = 32;

/// Images of two to six layers, which share the lower ones.
fn images(site: &Site) -> Vec<Chain> {
    let layers: Vec<Layer> = (0..9)
        .map(|n| {
            let (own, shared, deleted) =
                (format!("own{n}/f"), format!("shared/f{n}"), format!("shared/.wh.f{}", n / 2));
            let text = format!("layer {n}");
            // One file is in all of them: its content tells which layer is the upper one.
            let mut files = vec![(own.as_str(), text.as_str()), (&shared, &text), ("shared/which", &text)];
            if n > 0 && n / 2 < n {
                files.push((&deleted, ""));
            }
            if n == 5 {
                files.push(("own1/.wh..wh..opq", ""));
            }
            Layer::new(&format!("layer {n}"), &files)
        })
        .collect();
    layers.iter().for_each(|layer| site.publish(layer));
    let image = |name: &str, numbers: &[usize]| {
        Chain::new(name, &numbers.iter().map(|number| &layers[*number]).collect::<Vec<_>>())
    };
    vec![
        image("a", &[0, 1]),
        image("b", &[0, 1, 2, 3]),
        image("c", &[0, 1, 2, 4, 5]),
        image("d", &[0, 1, 2, 4, 5, 6]),
        image("e", &[7, 1, 8]),
        image("f", &[0, 3, 2]),
    ]
}

fn none() -> Labels {
    Labels::new()
}

fn top(pulled: &[Pulled]) -> String {
    pulled.last().unwrap().name.clone()
}

/// How often a directory was opened to read it, as a walk for markers does.
fn opened(site: &Site) -> u64 {
    site.mock().stats()["operations"]["opendir"].as_u64().unwrap_or_default()
}

/// What one walk through each layer that is not `hidden` opens: its root, and then every directory to list it.
fn opened_by_walks(images: &[Chain], hidden: &[Layer]) -> u64 {
    let mut opened = BTreeSet::new();
    for Layer { digest, files, .. } in images.iter().flat_map(|image| &image.layers) {
        if hidden.iter().any(|hidden| hidden.digest == *digest) {
            continue;
        }
        opened.insert((digest, None));
        let directories = files.iter().flat_map(|(path, _)| Path::new(path).ancestors().skip(1));
        opened.extend(directories.map(|directory| (digest, Some(directory.to_owned()))));
    }
    opened.len().try_into().unwrap()
}

/// What is at each path of a snapshot: the text of a file, or nothing for a directory.
type Tree = BTreeMap<String, Option<String>>;

fn tree(client: &Client, top: &str) -> Tree {
    let view = format!("view {top}");
    let mounted = Mounted::new(&client.view(&view, top, &none()).unwrap());
    let tree = mounted.tree().into_iter().map(|path| (path.clone(), mounted.read(&path))).collect();
    drop(mounted);
    client.remove(&view).unwrap();
    tree
}

/// The trees of all images, pulled one after the other, and the snapshots that there are then.
fn in_sequence(site: &Site, images: &[Chain]) -> (Vec<Tree>, BTreeSet<(String, String)>) {
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pull = |image: &Chain| top(&Namespace::new(&client, &image.reference, Style::New).pull(image));
    let tops: Vec<String> = images.iter().map(pull).collect();
    (tops.iter().map(|top| tree(&client, top)).collect(), stored(&client))
}

/// What is committed: targets and the targets of their parents. Names differ from run to run.
fn stored(client: &Client) -> BTreeSet<(String, String)> {
    let infos = client.list(&["kind==committed"]).unwrap();
    let target = |name: &str| {
        let info = infos.iter().find(|info| info.name == name);
        info.map_or_else(String::new, |info| info.labels["containerd.io/snapshot.ref"].clone())
    };
    // Of the layers in place, whose names are the daemon's.
    let mut in_place = BTreeSet::new();
    for info in infos.iter().filter(|info| info.name.contains('@')) {
        assert!(in_place.insert((target(&info.name), &info.parent)), "it is there twice: {info:?}");
    }
    infos.iter().map(|info| (target(&info.name), target(&info.parent))).collect()
}

#[test]
fn thirty_two_clients_pull_and_run_at_once() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let images = images(&site);
    let (trees, _) = in_sequence(&site, &images);
    // From here on some chains have a layer that each client extracts, at the top or with layers in place upon it.
    let hidden = [&images[1].layers[2], &images[4].layers[2]].map(Clone::clone);
    hidden.iter().for_each(|layer| site.hide(layer));
    let (partly, expected) = in_sequence(&site, &images);
    assert_eq!(partly, trees);
    let daemon = Daemon::start(&site.settings());
    site.mock().reset_stats();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (daemon, images) = (&daemon, &images);
            scope.spawn(move || {
                let client = daemon.client();
                // Two namespaces, with the numbers that containerd would give.
                let mut namespace = Namespace::new(&client, ["default", "k8s.io"][number % 2], Style::New);
                namespace.start_at(1000 * u64::try_from(number).unwrap());
                for round in 0..images.len() {
                    let image = &images[(round + number) % images.len()];
                    let pulled = namespace.pull(image);
                    let (key, name) = (namespace.key("container"), namespace.key("committed"));
                    let mounts = client.prepare(&key, &top(&pulled), &none()).unwrap();
                    assert_eq!(client.mounts(&key).unwrap(), mounts);
                    client.commit(&name, &key, &none()).unwrap();
                    let view = namespace.key("view");
                    client.view(&view, &name, &none()).unwrap();
                    client.remove(&name).unwrap_err();
                    client.remove(&view).unwrap();
                    client.remove(&name).unwrap();
                }
            });
        }
    });
    let client = daemon.client();
    assert_eq!(stored(&client), expected);
    assert_eq!(opened(&site), opened_by_walks(&images, &hidden), "each layer is looked through once");
    for (image, expected) in images.iter().zip(&trees) {
        let top = top(&Namespace::new(&client, &image.reference, Style::New).pull(image));
        assert_eq!(&tree(&client, &top), expected, "{}", image.reference);
    }
    assert_no_orphan(&daemon, &client);
}

/// A pull as containerd does it, while others remove: it begins again where a parent was taken away.
fn pull_somehow(client: &Client, namespace: &str, image: &Chain, number: &mut u64) -> Option<String> {
    let mut parent = String::new();
    for (index, target) in image.ids().iter().enumerate() {
        *number += 1;
        match client.prepare(&extract_key(namespace, *number, target), &parent, &image.labels(index, Style::New)) {
            Err(status) if status.code() == Code::AlreadyExists => {
                parent.clone_from(&client.list(&[&target_filter(target, &parent)]).unwrap().first()?.name);
            }
            // Its parent is gone.
            Err(status) if status.code() == Code::NotFound => return None,
            other => panic!("{other:?}"),
        }
    }
    Some(parent)
}

#[test]
fn pulls_and_removals_of_the_same_chains_at_once() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let images = images(&site);
    let (trees, expected) = in_sequence(&site, &images);
    let daemon = Daemon::start(&site.settings());
    let (pulled, removed, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let pulling: Vec<_> = (0..CLIENTS - 4)
            .map(|number| {
                let (daemon, images, pulled) = (&daemon, &images, &pulled);
                scope.spawn(move || {
                    let client = daemon.client();
                    let name = format!("n{number}");
                    let mut sequence = 0;
                    for round in 0..12 {
                        let image = &images[(round + number) % images.len()];
                        let Some(parent) = pull_somehow(&client, &name, image, &mut sequence) else { continue };
                        let key = format!("{name}/container {round}");
                        match client.prepare(&key, &parent, &none()) {
                            Ok(mounts) => {
                                // Nobody can take away what it stands on now.
                                assert_eq!(client.mounts(&key).unwrap(), mounts);
                                pulled.fetch_add(1, Ordering::Relaxed);
                                client.remove(&key).unwrap();
                            }
                            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
                        }
                    }
                })
            })
            .collect();
        for number in 0..4 {
            let (daemon, removed, ended) = (&daemon, &removed, &ended);
            scope.spawn(move || {
                let client = daemon.client();
                while !ended.load(Ordering::Relaxed) {
                    for info in client.list(&["kind==committed"]).unwrap() {
                        match client.remove(&info.name) {
                            Ok(()) => drop(removed.fetch_add(1, Ordering::Relaxed)),
                            Err(status) => {
                                let code = status.code();
                                assert!(matches!(code, Code::NotFound | Code::FailedPrecondition), "{status}");
                            }
                        }
                    }
                    if number == 0 {
                        client.cleanup().unwrap();
                    }
                }
            });
        }
        // A panic of one must not let the others run for ever.
        let results: Vec<_> = pulling.into_iter().map(ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
    let (pulled, removed) = (pulled.into_inner(), removed.into_inner());
    println!("{pulled} containers, {removed} layers removed under their feet");
    assert!(pulled > 0 && removed > 0);
    let client = daemon.client();
    for (image, expected) in images.iter().zip(&trees) {
        let top = top(&Namespace::new(&client, &image.reference, Style::New).pull(image));
        assert_eq!(&tree(&client, &top), expected, "{}", image.reference);
    }
    assert_eq!(stored(&client), expected);
    assert_no_orphan(&daemon, &client);
}
