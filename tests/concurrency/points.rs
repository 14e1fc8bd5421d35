//! Every mutating request, held at each of its steps on the disk, while its client goes away and others clean up.

use std::sync::Arc;

use containerd_snapshots::tonic::{Code, Status};

use tokio::sync::Notify;

use crate::held::{Held, can_hold};
use crate::support::{
    Client, Daemon, Image, Kind, Labels, Layer, Namespace, Site, Style, eventually, extract_key, labels,
};
use crate::{assert_no_orphan, support};

const MAKE_DIRECTORY: &str = "?mkdir,?mkdirat";
const MAKE_LINK: &str = "?symlink,?symlinkat";
const RENAME: &str = "?rename,?renameat,?renameat2";
const SYNC: &str = "fsync";
const SYNC_FILE_SYSTEM: &str = "syncfs";
/// What the store does: it writes, and makes it durable.
const STORE_WRITES: &str = "pwrite64";
const STORE_SYNCS: &str = "fdatasync";

type Request = Box<dyn Fn(&Client) -> Result<(), Status> + Sync>;

struct Case {
    call: &'static str,
    /// The key in the log.
    key: String,
    request: Request,
    points: &'static [&'static str],
    /// What is true once it is done.
    done: Box<dyn Fn(&Client) -> bool>,
}

fn none() -> Labels {
    Labels::new()
}

/// The cases of one round; their names differ from those of other rounds.
fn cases(client: &Client, round: usize, image: &Image) -> Vec<Case> {
    let name = |kind: &str| format!("{kind} {round}");
    let base = name("base");
    client.committed(&base, "");
    client.prepare(&name("to commit"), &base, &none()).unwrap();
    client.prepare(&name("to remove"), &base, &none()).unwrap();
    let exists = |key: String| move |client: &Client| client.mounts(&key).is_ok();
    let has_name = |name: String| move |client: &Client| client.stat(&name).is_ok();

    let key = name("local");
    let prepare_local = Case {
        call: "Prepare",
        points: &[MAKE_DIRECTORY, SYNC, STORE_WRITES, STORE_SYNCS],
        done: Box::new(exists(key.clone())),
        request: Box::new({
            let (key, base) = (key.clone(), base.clone());
            move |client| client.prepare(&key, &base, &none()).map(drop)
        }),
        key,
    };

    let target = image.chain()[0].clone();
    let key = extract_key(&format!("n{round}"), 1, &target);
    let filter = support::target_filter(&target, "");
    let prepare_remote = Case {
        call: "Prepare",
        points: &[MAKE_DIRECTORY, MAKE_LINK, RENAME, STORE_WRITES, STORE_SYNCS],
        done: Box::new(move |client| client.list(&[&filter]).unwrap().len() == 1),
        request: Box::new({
            let (key, labels) = (key.clone(), image.labels(0, Style::New));
            move |client| client.prepare(&key, "", &labels).map(drop)
        }),
        key,
    };

    let key = name("view");
    let view = Case {
        call: "View",
        points: &[STORE_WRITES, STORE_SYNCS],
        done: Box::new(exists(key.clone())),
        request: Box::new({
            let (key, base) = (key.clone(), base.clone());
            move |client| client.view(&key, &base, &none()).map(drop)
        }),
        key,
    };

    let (key, committed) = (name("to commit"), name("committed"));
    let commit = Case {
        call: "Commit",
        points: &[SYNC_FILE_SYSTEM, STORE_WRITES, STORE_SYNCS],
        done: Box::new(has_name(committed.clone())),
        request: Box::new({
            let key = key.clone();
            move |client| client.commit(&committed, &key, &none())
        }),
        key,
    };

    let key = name("to remove");
    let remove = Case {
        call: "Remove",
        points: &[STORE_WRITES, STORE_SYNCS, RENAME],
        done: Box::new({
            let key = key.clone();
            move |client| client.stat(&key).is_err()
        }),
        request: Box::new({
            let key = key.clone();
            move |client| client.remove(&key)
        }),
        key,
    };

    let updated = base.clone();
    let update = Case {
        call: "Update",
        points: &[STORE_WRITES, STORE_SYNCS],
        done: Box::new(move |client| client.stat(&updated).unwrap().labels.contains_key("x")),
        request: Box::new({
            let base = base.clone();
            move |client| client.update(&base, &labels(&[("x", "y")]), &["labels.x"]).map(drop)
        }),
        key: base,
    };
    vec![prepare_local, prepare_remote, view, commit, remove, update]
}

#[test]
fn a_request_that_is_left_at_any_step_is_done_wholly() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let numbers = 0..cases(&client, 1000, &Image::new("x", &[&Layer::new("x", &[])])).len();
    let mut round = 0;
    for number in numbers {
        for point in 0.. {
            round += 1;
            let layer = Layer::new(&format!("layer {round}"), &[("d/.wh.a", ""), ("d/b", "b")]);
            site.publish(&layer);
            let image = Image::new("i", &[&layer]);
            let case = cases(&client, round, &image).swap_remove(number);
            let Some(calls) = case.points.get(point) else { break };
            let what = format!("{} at {calls}", case.call);

            let seen = daemon.log().len();
            let held = Held::at(&daemon, calls);
            let (others, leave) = (daemon.client(), Arc::new(Notify::new()));
            let leaver = client.until(&leave);
            std::thread::scope(|scope| {
                let request = scope.spawn(|| (case.request)(&leaver));
                eventually(&what, || held.threads() > 0 || request.is_finished());
                assert!(!request.is_finished(), "{what} is never reached: {:?}", request.join());
                leave.notify_one();
                let left = request.join().unwrap().unwrap_err();
                assert_eq!(left.code(), Code::Cancelled, "{what}: {left}");
                // Whoever cleans up meanwhile spares what is being made; that may be held as well.
                let cleaning = scope.spawn(|| others.cleanup());
                let stopped = held.threads();
                eventually("the clean-up gets on", || cleaning.is_finished() || held.threads() > stopped);
                drop(held);
                cleaning.join().unwrap().unwrap();
            });
            let ended = |line: &str| {
                [format!("call={:?}", case.call), format!("key={:?}", case.key)].iter().all(|part| line.contains(part))
            };
            eventually(&what, || daemon.log()[seen..].lines().any(ended));

            assert!((case.done)(&client), "{what}: {}", daemon.log());
            assert_no_orphan(&daemon, &client);
            assert!((case.done)(&client), "{what}, after a clean-up");
        }
    }
    println!("{round} rounds");
}

#[test]
fn clean_up_spares_what_another_request_holds_between_its_directory_and_the_store() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("layer", &[("d/.wh.a", "")]);
    site.publish(&layer);
    let image = Image::new("i", &[&layer]);
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    client.committed("base", "");
    let before = daemon.ids();
    // Held in the store's transaction: the directories are there, and nobody knows of them yet.
    let held = Held::at(&daemon, STORE_SYNCS);
    std::thread::scope(|scope| {
        let local = scope.spawn(|| daemon.client().prepare("local", "base", &none()));
        let remote = scope.spawn(|| Namespace::new(&daemon.client(), "n", Style::New).in_place(&image));
        eventually("both have made their directories", || daemon.ids().len() == before.len() + 2 && held.threads() > 0);
        let ids = daemon.ids();
        client.stat("local").unwrap_err();
        for _ in 0..3 {
            client.cleanup().unwrap();
        }
        assert_eq!(daemon.ids(), ids);
        drop(held);
        local.join().unwrap().unwrap();
        assert_eq!(remote.join().unwrap(), [true]);
    });
    client.mounts("local").unwrap();
    assert_no_orphan(&daemon, &client);
}
