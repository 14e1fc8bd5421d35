//! What a repository that hangs costs those who do not need it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Client, Daemon, Image, Kind, Labels, Layer, Namespace, Site, Style, extract_key};
use crate::times::{HEAD, Times};

const ROUNDS: usize = 100;
const ALTERNATIONS: usize = 10;
const INSISTENT: usize = 8;

#[derive(Default)]
struct Calls {
    stat: Times,
    commit: Times,
    remove: Times,
}

fn none() -> Labels {
    Labels::new()
}

/// Prepares on a local parent, and times the rest. The names are used once.
fn measure(client: &Client, calls: &mut Calls, names: &mut impl Iterator<Item = usize>) {
    for number in names.take(ROUNDS) {
        let (key, name) = (format!("k{number}"), format!("c{number}"));
        client.prepare(&key, "base", &none()).unwrap();
        calls.stat.of(|| client.stat(&key)).unwrap();
        calls.commit.of(|| client.commit(&name, &key, &none())).unwrap();
        calls.remove.of(|| client.remove(&name)).unwrap();
    }
}

#[test]
#[ignore = "a measurement: make limits"]
fn latency_beside_a_hung_repository() {
    let Some(site) = Site::moody(Kind::Cvmfs) else { return };
    let layer = Layer::new("layer", &[("d/.wh.a", ""), ("d/b", "b")]);
    site.publish(&layer);
    let image = Image::new("i", &[&layer]);
    let daemon = Daemon::start(&site.impatient());
    let client = daemon.client();
    let top = Namespace::new(&client, "n", Style::New).pull(&image)[0].name.clone();
    client.committed("base", "");
    let (mut healthy, mut beside) = (Calls::default(), Calls::default());
    let mut names = 0..;
    measure(&client, &mut Calls::default(), &mut names);
    // In turns, since the machine has other things to do as well.
    for turn in 0..ALTERNATIONS {
        measure(&client, &mut healthy, &mut names);
        site.mock().hang();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..INSISTENT {
                let (daemon, image, top, ended) = (&daemon, &image, &top, &ended);
                scope.spawn(move || {
                    let client = daemon.client();
                    let mut sequence = 0;
                    while !ended.load(Ordering::Relaxed) {
                        sequence += 1;
                        let key = extract_key(&format!("{turn} {number}"), sequence, &image.chain()[0]);
                        let _ = client.prepare(&key, "", &image.labels(0, Style::New));
                        let _ = client.prepare(&format!("{turn} {number} {sequence}"), top, &none());
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                });
            }
            measure(&client, &mut beside, &mut names);
            ended.store(true, Ordering::Relaxed);
        });
        site.mock().unhang();
        while client.view(&format!("v{turn}"), &top, &none()).is_err() {}
    }
    println!("Latency beside a hung repository that {INSISTENT} clients ask for:\n{:20}{HEAD}", "");
    for (name, healthy, beside) in [
        ("Stat", &healthy.stat, &beside.stat),
        ("Commit", &healthy.commit, &beside.commit),
        ("Remove", &healthy.remove, &beside.remove),
    ] {
        println!("{name:10} healthy  {}\n{name:10} hung     {}", healthy.row(), beside.row());
        let ratio = beside.quantile(0.5).as_secs_f64() / healthy.quantile(0.5).as_secs_f64();
        println!("{name:10} median, hung to healthy: {ratio:.2}");
    }
}
