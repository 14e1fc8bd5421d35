//! What a repository that hangs costs those who do not need it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::times::{HEAD, Times};
use testkit::{Chain, Client, Daemon, Kind, Labels, Layer, Namespace, Site, Style, extract_key};

const ROUNDS: usize = 100;
const ALTERNATIONS: usize = 10;
const INSISTENT: usize = 8;
/// What a call may take beside the hung repository, for each second that it takes beside a healthy one: the median.
const RATIO: f64 = 2.0;

/// The calls on containers whose parent is local, or a chain of layers in the repository.
#[derive(Default)]
struct Calls {
    local: Series,
    dependent: Series,
}

#[derive(Default)]
struct Series {
    stat: Times,
    commit: Times,
    remove: Times,
}

impl Series {
    fn rows(&self) -> [(&'static str, &Times); 3] {
        [("Stat", &self.stat), ("Commit", &self.commit), ("Remove", &self.remove)]
    }

    /// Times what asks no repository. The container is there.
    fn measure(&mut self, client: &Client, key: &str) {
        self.stat.of(|| client.stat(key)).unwrap();
        let name = format!("{key} committed");
        self.commit.of(|| client.commit(&name, key, &none())).unwrap();
        self.remove.of(|| client.remove(&name)).unwrap();
    }
}

fn none() -> Labels {
    Labels::new()
}

/// Containers on this parent, which are to be measured later. The names are used once.
fn prepare(client: &Client, parent: &str, names: &mut impl Iterator<Item = usize>) -> Vec<String> {
    let prepare = |number: usize| {
        let key = format!("k{number}");
        client.prepare(&key, parent, &none()).unwrap();
        key
    };
    names.take(ROUNDS).map(prepare).collect()
}

/// Measures containers on a local parent that are prepared now, and the `dependent` ones.
fn measure(client: &Client, calls: &mut Calls, names: &mut impl Iterator<Item = usize>, dependent: &[String]) {
    for key in dependent {
        let number = names.next().unwrap();
        let local = format!("k{number}");
        client.prepare(&local, "base", &none()).unwrap();
        calls.local.measure(client, &local);
        calls.dependent.measure(client, key);
    }
}

#[test]
#[ignore = "a measurement: make limits"]
fn latency_beside_a_hung_repository() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let layer = Layer::new("layer", &[("d/.wh.a", ""), ("d/b", "b")]);
    site.publish(&layer);
    let image = Chain::new("i", &[&layer]);
    let daemon = Daemon::start(&site.short_limits());
    let client = daemon.client();
    let top = Namespace::new(&client, "n", Style::New).pull(&image)[0].name.clone();
    client.committed("base", "");
    let (mut healthy, mut beside) = (Calls::default(), Calls::default());
    let mut names = 0..;
    let dependent = prepare(&client, &top, &mut names);
    measure(&client, &mut Calls::default(), &mut names, &dependent);
    // In turns, since the machine has other things to do as well.
    for turn in 0..ALTERNATIONS {
        let [first, second] = [(); 2].map(|()| prepare(&client, &top, &mut names));
        measure(&client, &mut healthy, &mut names, &first);
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
                        let key = extract_key(&format!("{turn} {number}"), sequence, &image.ids()[0]);
                        let _ = client.prepare(&key, "", &image.labels(0, Style::New));
                        let _ = client.prepare(&format!("{turn} {number} {sequence}"), top, &none());
                        testkit::pause(std::time::Duration::from_millis(50));
                    }
                });
            }
            measure(&client, &mut beside, &mut names, &second);
            ended.store(true, Ordering::Relaxed);
        });
        site.mock().unhang();
        while client.view(&format!("v{turn}"), &top, &none()).is_err() {}
    }
    println!("Latency beside a hung repository that {INSISTENT} clients ask for:\n{:32}{HEAD}", "");
    let mut ratios = Vec::new();
    for (parent, healthy, beside) in
        [("local", &healthy.local, &beside.local), ("in the repository", &healthy.dependent, &beside.dependent)]
    {
        for ((name, healthy), (_, beside)) in healthy.rows().into_iter().zip(beside.rows()) {
            println!("{name:7}{parent:18}healthy{}\n{name:7}{parent:18}hung   {}", healthy.row(), beside.row());
            let ratio = beside.quantile(0.5).as_secs_f64() / healthy.quantile(0.5).as_secs_f64();
            println!("{name:7}{parent:18}median, hung to healthy: {ratio:.2}");
            ratios.push((name, parent, ratio));
        }
    }
    ratios.retain(|(.., ratio)| *ratio >= RATIO);
    assert!(ratios.is_empty(), "{ratios:?}");
}
