//! Many snapshots.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::setting;
use crate::times::{HEAD, Resident, Times};
use testkit::{Client, Daemon, Kind, Labels, Layer, Site, extract_key, labels, sha256, target_filter};

const CLIENTS: usize = 8;
/// Layers of an image, and containers on each.
const DEPTH: usize = 10;
const CONTAINERS: usize = 2;
/// What is measured where nobody asks for another number.
const SNAPSHOTS: usize = 100_000;
/// What a start with so many may take, on an idle machine.
const START: Duration = Duration::from_secs(1);
/// A manifest's labels and annotations.
const LABEL_BYTES: usize = 1500;

fn none() -> Labels {
    Labels::new()
}

/// Pulls images of layers in place and prepares containers on them, until there are enough snapshots.
fn fill(daemon: &Daemon, layers: &[Layer], wanted: usize) -> Times {
    let made = AtomicUsize::new(0);
    let mut times = Times::default();
    let filled: Vec<Times> = std::thread::scope(|scope| {
        let one = |thread: usize| {
            let (made, client) = (&made, daemon.client());
            move || {
                let mut times = Times::default();
                for image in 0.. {
                    if made.fetch_add(DEPTH + CONTAINERS, Ordering::Relaxed) + DEPTH + CONTAINERS > wanted {
                        break;
                    }
                    times.add(pull(&client, &format!("t{thread}x{image}"), layers));
                }
                times
            }
        };
        let threads: Vec<_> = (0..CLIENTS).map(|thread| scope.spawn(one(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    filled.into_iter().for_each(|one| times.add(one));
    times
}

fn pull(client: &Client, image: &str, layers: &[Layer]) -> Times {
    let mut times = Times::default();
    let mut parent = String::new();
    for (index, layer) in layers.iter().enumerate() {
        let target = format!("sha256:{}", sha256(&format!("{image} {index}")));
        let labels = labels(&[
            ("containerd.io/snapshot.ref", &target),
            ("containerd.io/snapshot/cri.layer-digest", &format!("sha256:{}", layer.digest)),
            ("annotation", &"x".repeat(LABEL_BYTES)),
        ]);
        let key = extract_key(image, u64::try_from(index).unwrap(), &target);
        let answer = times.of(|| client.prepare(&key, &parent, &labels));
        assert!(answer.is_err(), "used in place");
        parent.clone_from(&client.list(&[&target_filter(&target, &parent)]).unwrap()[0].name);
    }
    for container in 0..CONTAINERS {
        client.prepare(&format!("{image}/container {container}"), &parent, &none()).unwrap();
    }
    times
}

/// From the start of the process to the first answer.
fn start(daemon: &mut Daemon) -> Duration {
    let begin = Instant::now();
    daemon.restart();
    daemon.client().stat("no such snapshot").unwrap_err();
    begin.elapsed()
}

#[test]
#[ignore = "a measurement: make limits"]
fn many_snapshots() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layers: Vec<Layer> =
        (0..DEPTH).map(|n| Layer::new(&format!("l{n}"), &[("d/.wh.a", ""), ("d/b", "b")])).collect();
    layers.iter().for_each(|layer| layer.publish_without_record(site.backing()));
    let wanted = setting("SNAPSHOTS", SNAPSHOTS);
    let mut settings = site.settings();
    settings.log_level = "info";
    let mut daemon = Daemon::start(&settings);

    let begin = Instant::now();
    let times = fill(&daemon, &layers, wanted);
    let seconds = begin.elapsed().as_secs_f64();
    let client = daemon.client();
    let count = client.list(&[]).unwrap().len();
    println!("{count} snapshots by {CLIENTS} clients in {seconds:.0} s; resident {}", Resident::of(&daemon));
    let store = daemon.root().join("metadata.redb").metadata().unwrap().len();
    println!("the store has {} MiB", store / 1024 / 1024);
    println!("{:40}{HEAD}\n{:40}{}", "", "Prepare of a layer in place", times.row());

    let mut alone = Times::default();
    for _ in 0..10 {
        assert_eq!(alone.of(|| client.list(&[]).unwrap().len()), count);
    }
    println!("{:40}{}", "List of all", alone.row());
    println!("resident after {} listings: {}", alone.count(), Resident::of(&daemon));
    let (ended, mut writing) = (AtomicBool::new(false), Times::default());
    let beside = std::thread::scope(|scope| {
        let lists = scope.spawn(|| {
            let (client, mut times) = (daemon.client(), Times::default());
            while !ended.load(Ordering::Relaxed) {
                assert!(times.of(|| client.list(&[]).unwrap().len()) >= count);
            }
            times
        });
        for number in 0..500 {
            let key = format!("beside {number}");
            writing.of(|| client.prepare(&key, "", &none())).unwrap();
            client.remove(&key).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        lists.join().unwrap()
    });
    println!("{:40}{}\n{:40}{}", "List of all beside a writer", beside.row(), "Prepare beside listings", writing.row());
    let mut stats = Times::default();
    for info in client.list(&["kind==active"]).unwrap().iter().take(2000) {
        stats.of(|| client.stat(&info.name)).unwrap();
    }
    println!("{:40}{}", "Stat", stats.row());

    let mut starts = Times::default();
    for round in 0..7 {
        std::thread::scope(|scope| {
            let daemon = &daemon;
            for thread in 0..2 {
                scope.spawn(move || {
                    let client = daemon.client();
                    for number in 0.. {
                        if client.prepare(&format!("killed {round} {thread} {number}"), "", &none()).is_err() {
                            return;
                        }
                    }
                });
            }
            testkit::pause(Duration::from_millis(300));
            daemon.signal(Signal::SIGKILL);
        });
        daemon.wait();
        let took = starts.of(|| start(&mut daemon)).as_secs_f64();
        println!("start after SIGKILL amid writes: {took:.3} s; resident {}", Resident::of(&daemon));
    }
    println!("{:40}{HEAD}\n{:40}{}", "", "Start after SIGKILL", starts.row());
    assert!(daemon.client().list(&[]).unwrap().len() >= count);
    // The best one: what else the machine does can only make it longer.
    let best = starts.quantile(0.0);
    assert!(wanted != SNAPSHOTS || best < START, "{best:?}");
}
