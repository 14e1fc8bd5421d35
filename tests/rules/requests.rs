//! How requests are carried out: quickly, wholly, and with the right effect on what containerd does next.

use std::fs;
use std::time::{Duration, Instant};

use containerd_snapshots::tonic::Code;

use crate::start;
use testkit::mock::waiting_in_fuse;
use testkit::{Chain, Daemon, Kind, Labels, Layer, Namespace, Site, Style, eventually, extract_key, labels, upper};

/// Far more than a request takes that asks nobody, far less than a repository may take.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn rule_15_commit_and_update_are_fast_beside_a_hung_repository() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let layer = Layer::new("a", &[("a", "a")]);
    site.publish(&layer);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let pulled = Namespace::new(&client, "default", Style::New).pull(&Chain::new("i", &[&layer]));
    client.prepare("k", &pulled[0].name, &Labels::new()).unwrap();
    site.mock().hang();
    let begin = Instant::now();
    client.commit("c", "k", &Labels::new()).unwrap();
    client.update("c", &labels(&[("a", "b")]), &[]).unwrap();
    client.update(&pulled[0].name, &labels(&[("a", "b")]), &["labels.a"]).unwrap();
    assert!(begin.elapsed() < 3 * AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn rule_16_a_client_that_leaves_leaves_nothing_half_done() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let layers: Vec<_> = (0..6).map(|n| Layer::new(&n.to_string(), &[("d/f", "x"), ("d/.wh.y", "")])).collect();
    layers.iter().for_each(|layer| site.publish(layer));
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let mut parent = String::new();
    let image = Chain::new("i", &layers.iter().collect::<Vec<_>>());
    let chain = image.ids();
    for (index, target) in chain.iter().enumerate() {
        let labels = image.labels(index, Style::New);
        let key = extract_key("default", index as u64, target);
        // At a question to the repository: one that is not answered before the client has left, or one that is later.
        if index % 2 == 0 {
            site.mock().hang();
        } else {
            site.mock().slow(Duration::from_millis(500));
        }
        client.prepare_and_leave(&key, &parent, &labels, || {
            eventually("it asks the repository", || !waiting_in_fuse(daemon.pid()).is_empty());
        });
        // The client tries again at once.
        site.mock().slow(Duration::ZERO);
        site.mock().unhang();
        let again = client.prepare(&extract_key("default", 100 + index as u64, target), &parent, &labels);
        assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(client.stat(&key).unwrap_err().code(), Code::NotFound);
        parent = Namespace::new(&client, "default", Style::New).find(target, &parent).name;
    }
    // An ordinary one, which a client may leave behind too: it is there with its files, or not at all.
    site.mock().hang();
    client.prepare_and_leave("k", &parent, &Labels::new(), || {
        eventually("it asks the repository", || !waiting_in_fuse(daemon.pid()).is_empty());
    });
    site.mock().unhang();
    eventually("the Prepare without a client ends", || client.stat("k").is_ok());
    assert!(upper(&client.mounts("k").unwrap()).is_dir());
    client.cleanup().unwrap();
    assert_eq!(daemon.ids().len(), client.keys().len(), "{:?} {:?}", daemon.ids(), client.keys());
    assert_eq!(client.keys().len(), layers.len() + 1);
}

#[test]
fn rule_17_remove_says_what_garbage_collection_needs_to_know() {
    let Some((daemon, client)) = start() else { return };
    client.committed("base", "");
    client.committed("top", "base");
    client.prepare("k", "top", &Labels::new()).unwrap();
    for key in ["base", "top"] {
        let refused = client.remove(key).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("remove"), "{refused}");
    }
    // Also where the files cannot be deleted now.
    let inside = upper(&client.mounts("k").unwrap()).join("inside");
    fs::create_dir(&inside).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &inside, Some("tmpfs"), flags, None::<&str>).unwrap();
    fs::write(inside.join("precious"), "x").unwrap();
    for key in ["k", "top", "base"] {
        client.remove(key).unwrap();
    }
    client.cleanup().unwrap();
    assert_eq!(client.remove("k").unwrap_err().code(), Code::NotFound);
    let trashed = walkdir::WalkDir::new(daemon.root()).into_iter().map(Result::unwrap);
    let mounted: Vec<_> = trashed.filter(|entry| entry.file_name() == "precious").collect();
    assert_eq!(mounted.len(), 1, "what is mounted there is not touched");
    nix::mount::umount(mounted[0].path().parent().unwrap()).unwrap();
    client.cleanup().unwrap();
    assert!(testkit::names(&daemon.root().join("trash")).is_empty());
    assert!(daemon.ids().is_empty());
}

#[test]
fn rule_18_listings_are_streams_of_at_most_100_and_may_be_empty() {
    let Some((_daemon, client)) = start() else { return };
    assert!(client.list(&[]).unwrap().is_empty());
    assert!(client.list(&["name==x"]).unwrap().is_empty());
    for n in 0..230 {
        client.view(&format!("{n:03}"), "", &Labels::new()).unwrap();
    }
    let messages = client.list_messages(&[]).unwrap();
    let mut sizes: Vec<_> = messages.iter().map(|message| message.info.len()).collect();
    assert!(sizes.iter().all(|size| (1..=100).contains(size)), "{sizes:?}");
    sizes.sort_unstable();
    assert_eq!(sizes.iter().sum::<usize>(), 230);
    assert_eq!(client.list(&["kind==view"]).unwrap().len(), 230);
    assert_eq!(client.list(&["kind==view", "kind==active"]).unwrap().len(), 230);
}

#[test]
fn rule_18_filters() {
    let Some((_daemon, client)) = start() else { return };
    let none = Labels::new();
    client.prepare("base a", "", &labels(&[("l", "1"), ("a.b/c", "x y"), ("q", "\"")])).unwrap();
    client.commit("base", "base a", &labels(&[("l", "1"), ("a.b/c", "x y"), ("q", "\"")])).unwrap();
    client.prepare("k", "base", &labels(&[("l", "2")])).unwrap();
    client.view("v", "base", &none).unwrap();
    for (filters, expected) in [
        (&[""][..], &["base", "k", "v"][..]),
        (&["kind==committed"], &["base"]),
        (&["kind==active", "kind==view"], &["k", "v"]),
        (&["parent==base"], &["k", "v"]),
        (&["parent!=\"\""], &["k", "v"]),
        (&["parent==\"\""], &["base"]),
        (&["name==k", "name==base", "name==missing"], &["base", "k"]),
        (&["labels.l"], &["base", "k"]),
        (&["labels.l==1"], &["base"]),
        (&["labels.l!=1"], &["k", "v"]),
        (&["labels.\"a.b/c\"==\"x y\""], &["base"]),
        (&["labels.q==\"\\\"\""], &["base"]),
        (&["labels.l,parent==base"], &["k"]),
        (&["name~=^b.s"], &["base"]),
        (&["name==\"b\\x61s\\u0065\""], &["base"]),
        (&["nothing"], &[]),
    ] {
        let mut found: Vec<_> = client.list(filters).unwrap().into_iter().map(|info| info.name).collect();
        found.sort();
        assert_eq!(found, expected, "{filters:?}");
    }
}

#[test]
fn rule_19_cleanup_is_ok_and_takes_only_what_nobody_knows() {
    let Some((daemon, client)) = start() else { return };
    client.committed("base", "");
    client.prepare("k", "base", &Labels::new()).unwrap();
    let kept = daemon.ids();
    let orphan = daemon.snapshots().join("4711");
    fs::create_dir_all(orphan.join("fs/deep")).unwrap();
    fs::write(daemon.snapshots().join("notes.txt"), "not ours").unwrap();
    client.cleanup().unwrap();
    fs::remove_file(daemon.snapshots().join("notes.txt")).expect("what is not ours is left alone");
    assert_eq!(daemon.ids(), kept);
    // Also where it cannot do everything.
    fs::create_dir_all(&orphan).unwrap();
    fs::create_dir_all(daemon.root().join("trash/4711/x")).unwrap();
    client.cleanup().unwrap();
    client.cleanup().unwrap();
    assert_eq!(daemon.ids(), kept);
}
