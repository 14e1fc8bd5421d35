//! Every mutating request, held at each of its steps on the disk, while its client goes away and others clean up.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use containerd_snapshots::tonic::{Code, Status};

use tokio::sync::Notify;

use crate::held::{Held, Hold, When, can_hold};
use crate::support::{
    Client, Daemon, Image, Kind, Labels, Layer, Mounted, Namespace, Site, Style, eventually, extract_key, labels, upper,
};
use crate::{assert_no_orphan, support};

const MAKE_DIRECTORY: &str = "?mkdir,?mkdirat";
const MAKE_LINK: &str = "?symlink,?symlinkat";
const MAKE_NODE: &str = "?mknod,?mknodat";
const LIST_DIRECTORY: &str = "getdents64";
const DELETE: &str = "unlinkat";
const RENAME: &str = "?rename,?renameat,?renameat2";
const SYNC: &str = "fsync";
const SYNC_FILE_SYSTEM: &str = "syncfs";
/// What the store does: it writes, and makes it durable.
const STORE_WRITES: &str = "pwrite64";
const STORE_SYNCS: &str = "fdatasync";

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

fn none() -> Labels {
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
    let image = Image::new("i", &[&layers[0]]);
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

    let key = extract_key(&format!("m{round}"), 1, &Image::new("m", &[&layers[2]]).chain()[0]);
    let prepare_download = Case {
        call: "Prepare",
        points: &[MAKE_DIRECTORY, SYNC, STORE_WRITES, STORE_SYNCS],
        done: Box::new(exists(key.clone())),
        request: Box::new({
            let (key, labels) = (key.clone(), Image::new("m", &[&layers[2]]).labels(0, Style::New));
            move |client| client.prepare(&key, "", &labels).map(drop)
        }),
        key,
    };

    let chain = Namespace::new(client, &name("chain"), Style::New).pull(&Image::new("c", &[&layers[1], &plain]));
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
        done: Box::new(move |_| !orphan.exists() && support::names(&trash).is_empty()),
        request: Box::new(Client::cleanup),
        key: String::new(),
    };
    vec![prepare_local, prepare_remote, prepare_download, prepare_container, view, commit, remove, update, clean_up]
}

/// Whether it is done within this time.
fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
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
                    CLEAN_UP => drop(within(Duration::from_secs(1), gets_on)),
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

/// How long what goes on by itself is held. The next one is tried where the machine is too busy for the one before.
const DELAYS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// One container and one layer in place that are being made while somebody cleans up.
struct Making {
    daemon: Daemon,
    client: Client,
    image: Image,
    /// What is there before: directories, and snapshots.
    before: (usize, usize),
}

impl Making {
    fn new(site: &Site) -> Self {
        let layers = [("lower", "d/a"), ("upper", "d/.wh.a")].map(|(name, file)| Layer::new(name, &[(file, "")]));
        layers.iter().for_each(|layer| site.publish(layer));
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        client.committed("base", "");
        // Looked through before anything is held, as that lists directories, too. One upon the other is still to come.
        for layer in &layers {
            assert_eq!(Namespace::new(&client, &layer.digest, Style::New).in_place(&Image::new("i", &[layer])), [true]);
        }
        let before = (daemon.ids().len(), client.keys().len());
        Self { daemon, client, image: Image::new("i", &[&layers[0], &layers[1]]), before }
    }

    fn local(&self) {
        self.daemon.client().prepare("local", "base", &none()).unwrap();
    }

    fn remote(&self) {
        assert_eq!(Namespace::new(&self.daemon.client(), "n", Style::New).in_place(&self.image), [true, true]);
    }

    /// Whether both have their directories.
    fn have_directories(&self) -> bool {
        self.daemon.ids().len() == self.before.0 + 2
    }

    /// How many of the two are in the store.
    fn stored(&self) -> usize {
        self.client.keys().len() - self.before.1
    }

    /// Both live, and can be used.
    fn assert_spared(&self) {
        assert!(self.have_directories(), "{}", self.daemon.log());
        let mounts = self.client.mounts("local").unwrap();
        std::fs::write(upper(&mounts).join("file"), "x").unwrap();
        assert_eq!(Mounted::new(&mounts).tree(), ["file"]);
        let name = Namespace::new(&self.client, "later", Style::New).pull(&self.image).remove(1).name;
        let view = self.client.view("view", &name, &none()).unwrap();
        assert_eq!(Mounted::new(&view).tree(), ["d/"]);
        assert_no_orphan(&self.daemon, &self.client);
    }
}

#[test]
fn clean_up_spares_what_is_stored_between_its_listing_and_its_look_into_the_store() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let met = DELAYS.into_iter().any(|limit| {
        let making = Making::new(&site);
        let held = Held::holding(
            &making.daemon,
            &[Hold { calls: STORE_SYNCS, when: When::Before, limit }, Hold::until_dropped(LIST_DIRECTORY, When::After)],
        );
        let met = std::thread::scope(|scope| {
            let requests = [scope.spawn(|| making.local()), scope.spawn(|| making.remote())];
            eventually("both have made their directories", || making.have_directories());
            let cleaning = scope.spawn(|| making.daemon.client().cleanup().unwrap());
            // The one that is in the store's transaction, and the clean-up with its listing.
            let met = within(limit, || held.threads() == 2) && making.stored() == 0;
            eventually("both are stored", || making.stored() == 2);
            eventually("both are answered", || requests.iter().all(ScopedJoinHandle::is_finished));
            assert!(!cleaning.is_finished(), "held");
            drop(held);
            met
        });
        making.assert_spared();
        met
    });
    assert!(met, "the requests were never stored while the clean-up was held");
}

#[test]
fn clean_up_spares_what_is_begun_after_it() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let met = DELAYS.into_iter().any(|limit| {
        let making = Making::new(&site);
        let held = Held::holding(
            &making.daemon,
            &[
                Hold { calls: LIST_DIRECTORY, when: When::Before, limit },
                Hold::until_dropped(STORE_SYNCS, When::Before),
            ],
        );
        let met = std::thread::scope(|scope| {
            let cleaning = scope.spawn(|| making.daemon.client().cleanup().unwrap());
            eventually("it is held before its listing", || held.threads() == 1 || cleaning.is_finished());
            let requests = [scope.spawn(|| making.local()), scope.spawn(|| making.remote())];
            eventually("both have made their directories", || making.have_directories());
            let met = !cleaning.is_finished();
            eventually("the clean-up ends", || cleaning.is_finished() || !making.have_directories());
            assert!(making.have_directories(), "one is deleted while it is being made");
            assert!(!requests.iter().any(ScopedJoinHandle::is_finished), "held");
            assert_eq!(making.stored(), 0);
            drop(held);
            met
        });
        making.assert_spared();
        met
    });
    assert!(met, "the clean-up was never held while the requests began");
}
