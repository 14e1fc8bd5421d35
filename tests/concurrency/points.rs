//! Every mutating request, held at each of its steps on the disk, while its client goes away and others clean up.

use std::sync::Arc;
use std::time::Duration;

use containerd_snapshots::tonic::{Code, Status};

use tokio::sync::Notify;

use crate::assert_no_orphan;
use crate::held::{Held, can_hold};
use testkit::{
    Chain, Client, Daemon, Kind, Labels, Layer, Mounted, Namespace, Site, Style, eventually, extract_key, labels,
    wait_until,
};

const MAKE_DIRECTORY: &str = "?mkdir,?mkdirat";
const MAKE_LINK: &str = "?symlink,?symlinkat";
const MAKE_NODE: &str = "?mknod,?mknodat";
pub(crate) const LIST_DIRECTORY: &str = "getdents64";
const DELETE: &str = "unlinkat";
const RENAME: &str = "?rename,?renameat,?renameat2";
const SYNC: &str = "fsync";
const SYNC_FILE_SYSTEM: &str = "syncfs";
/// What the store does: it writes, and makes it durable.
const STORE_WRITES: &str = "pwrite64";
pub(crate) const STORE_SYNCS: &str = "fdatasync";

const CLEAN_UP: &str = "Cleanup";
/// Ids from here on are of no snapshot.
const ORPHANS: usize = 1_000_000;

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

pub(crate) fn none() -> Labels {
    Labels::new()
}

/// The cases of one round; their names differ from those of other rounds.
fn cases(site: &Site, daemon: &Daemon, client: &Client, round: usize) -> Vec<Case> {
    let name = |kind: &str| format!("{kind} {round}");
    let layer = |kind: &str| Layer::new(&name(kind), &[("d/.wh.a", ""), ("d/b", "b")]);
    let layers = ["layer", "lower", "missing"].map(layer);
    // Without deletions: it has a cover only where it is the top-most layer of a stack.
    let plain = Layer::new(&name("plain"), &[("d/c", "c")]);
    [&layers[0], &layers[1], &plain].into_iter().for_each(|layer| site.publish(layer));
    let image = Chain::new("i", &[&layers[0]]);
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

    let target = image.ids()[0].clone();
    let key = extract_key(&format!("n{round}"), 1, &target);
    let filter = testkit::target_filter(&target, "");
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

    let key = extract_key(&format!("m{round}"), 1, &Chain::new("m", &[&layers[2]]).ids()[0]);
    let prepare_download = Case {
        call: "Prepare",
        points: &[MAKE_DIRECTORY, SYNC, STORE_WRITES, STORE_SYNCS],
        done: Box::new(exists(key.clone())),
        request: Box::new({
            let (key, labels) = (key.clone(), Chain::new("m", &[&layers[2]]).labels(0, Style::New));
            move |client| client.prepare(&key, "", &labels).map(drop)
        }),
        key,
    };

    let chain = Namespace::new(client, &name("chain"), Style::New).pull(&Chain::new("c", &[&layers[1], &plain]));
    assert!(chain.iter().all(|layer| layer.in_place));
    let (key, top) = (name("container"), chain[1].name.clone());
    let prepare_container = Case {
        call: "Prepare",
        points: &[MAKE_DIRECTORY, MAKE_NODE, RENAME, SYNC, STORE_WRITES, STORE_SYNCS],
        done: Box::new({
            let key = key.clone();
            move |client| {
                let tree = client.mounts(&key).map(|mounts| Mounted::new(&mounts).tree());
                tree.is_ok_and(|tree| tree == ["d/", "d/b", "d/c"])
            }
        }),
        request: Box::new({
            let key = key.clone();
            move |client| client.prepare(&key, &top, &none()).map(drop)
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

    // As a crash leaves it.
    let orphan = daemon.snapshots().join((ORPHANS + round).to_string());
    std::fs::create_dir_all(orphan.join("fs")).unwrap();
    std::fs::write(orphan.join("fs/file"), "x").unwrap();
    let trash = daemon.root().join("trash");
    let clean_up = Case {
        call: CLEAN_UP,
        points: &[LIST_DIRECTORY, RENAME, DELETE],
        done: Box::new(move |_| !orphan.exists() && testkit::names(&trash).is_empty()),
        request: Box::new(Client::cleanup),
        key: String::new(),
    };
    vec![prepare_local, prepare_remote, prepare_download, prepare_container, view, commit, remove, update, clean_up]
}

#[test]
fn a_request_that_is_left_at_any_step_is_done_wholly() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let daemon = Daemon::start(&site.settings());
    let client = daemon.client();
    let numbers = 0..cases(&site, &daemon, &client, 0).len();
    let mut round = 0;
    for number in numbers {
        for point in 0.. {
            round += 1;
            let case = cases(&site, &daemon, &client, round).swap_remove(number);
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
                let stopped = held.threads();
                let cleaning = scope.spawn(|| others.cleanup());
                let gets_on = || cleaning.is_finished() || held.threads() > stopped;
                match case.call {
                    // The second waits for the first one where that deletes: nothing shows this.
                    CLEAN_UP => drop(wait_until(Duration::from_secs(1), gets_on)),
                    _ => eventually("the clean-up gets on", gets_on),
                }
                drop(held);
                cleaning.join().unwrap().unwrap();
            });
            let ended = |line: &str| {
                [format!("call={:?}", case.call), format!("key={:?}", case.key)].iter().all(|part| line.contains(part))
            };
            // Of two clean-ups each has to end.
            let wanted = if case.call == CLEAN_UP { 2 } else { 1 };
            eventually(&what, || daemon.log()[seen..].lines().filter(|line| ended(line)).count() == wanted);

            assert!((case.done)(&client), "{what}: {}", daemon.log());
            assert_no_orphan(&daemon, &client);
            assert!((case.done)(&client), "{what}, after a clean-up");
        }
    }
    println!("{round} rounds");
}
