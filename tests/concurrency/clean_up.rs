//! A clean-up spares what others are making meanwhile.

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::assert_no_orphan;
use crate::held::{Held, Hold, When, can_hold};
use crate::points::{LIST_DIRECTORY, STORE_SYNCS, none};
use testkit::{Chain, Client, Daemon, Kind, Layer, Mounted, Namespace, Site, Style, eventually, upper, wait_until};

#[test]
fn what_another_request_holds_between_its_directory_and_the_store() {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layer = Layer::new("layer", &[("d/.wh.a", "")]);
    site.publish(&layer);
    let image = Chain::new("i", &[&layer]);
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
    image: Chain,
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
            assert_eq!(Namespace::new(&client, &layer.digest, Style::New).in_place(&Chain::new("i", &[layer])), [true]);
        }
        let before = (daemon.ids().len(), client.keys().len());
        Self { daemon, client, image: Chain::new("i", &[&layers[0], &layers[1]]), before }
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

/// Runs with these two points held, and with longer limits until it says that they have met.
fn spared(holds: impl Fn(Duration) -> [Hold; 2], run: impl Fn(&Making, Held, Duration) -> bool) {
    if !can_hold() {
        return;
    }
    let Some(site) = Site::new(Kind::Directory) else { return };
    let met = DELAYS.into_iter().any(|limit| {
        let making = Making::new(&site);
        let held = Held::holding(&making.daemon, &holds(limit));
        let met = run(&making, held, limit);
        making.assert_spared();
        met
    });
    assert!(met, "the clean-up and the requests never met");
}

#[test]
fn what_is_stored_between_its_listing_and_its_look_into_the_store() {
    let holds = |limit| {
        [Hold { calls: STORE_SYNCS, when: When::Before, limit }, Hold::until_dropped(LIST_DIRECTORY, When::After)]
    };
    spared(holds, |making, held, limit| {
        std::thread::scope(|scope| {
            let requests = [scope.spawn(|| making.local()), scope.spawn(|| making.remote())];
            eventually("both have made their directories", || making.have_directories());
            let cleaning = scope.spawn(|| making.daemon.client().cleanup().unwrap());
            // The one that is in the store's transaction, and the clean-up with its listing.
            let met = wait_until(limit, || held.threads() == 2) && making.stored() == 0;
            eventually("both are stored", || making.stored() == 2);
            eventually("both are answered", || requests.iter().all(ScopedJoinHandle::is_finished));
            assert!(!cleaning.is_finished(), "held");
            drop(held);
            met
        })
    });
}

#[test]
fn what_is_begun_before_its_listing() {
    let holds = |limit| {
        [Hold { calls: LIST_DIRECTORY, when: When::Before, limit }, Hold::until_dropped(STORE_SYNCS, When::Before)]
    };
    spared(holds, |making, held, _| {
        std::thread::scope(|scope| {
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
        })
    });
}
