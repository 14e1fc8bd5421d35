//! Whether memory grows with the number of requests.

use crate::setting;
use crate::times::{Resident, threads};
use testkit::{Chain, Client, Daemon, Kind, Labels, Layer, Namespace, Site, Style, labels};

const CLIENTS: usize = 4;
const FEW: usize = 10_000;
/// What there may be at the end for each byte after the first requests.
const GROWTH: f64 = 1.1;

fn none() -> Labels {
    Labels::new()
}

/// Requests as they come on a node: mostly reads, some containers, now and then a pull that is dropped again.
fn use_image(client: &Client, image: &Chain, top: &str, thread: usize, requests: usize, round: &mut usize) {
    let mut sent = 0;
    while sent < requests {
        *round += 1;
        let key = format!("t{thread}/{round}/container");
        client.prepare(&key, top, &none()).unwrap();
        client.update(&key, &labels(&[("used", "yes")]), &["labels.used"]).unwrap();
        for _ in 0..24 {
            client.stat(top).unwrap();
            client.usage(top).unwrap();
            client.list(&[&format!("parent=={top:?}")]).unwrap();
            client.mounts(&key).unwrap();
        }
        client.remove(&key).unwrap();
        client.prepare(&key, "no such parent", &none()).unwrap_err();
        sent += 100;
        if round.is_multiple_of(10) {
            // The answer is held already, as for a second namespace.
            Namespace::new(client, &format!("t{thread}x{round}"), Style::New).pull(image);
            client.cleanup().unwrap();
        }
    }
}

#[test]
#[ignore = "a measurement: make limits"]
fn resident_memory_after_many_requests() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let layers: Vec<Layer> = (0..4)
        .map(|n| Layer::new(&format!("l{n}"), &[("d/.wh.a", ""), ("d/b", "b"), ("e/.wh..wh..opq", "")]))
        .collect();
    layers.iter().for_each(|layer| site.publish(layer));
    let image = Chain::new("i", &layers.iter().collect::<Vec<_>>());
    let many = setting("REQUESTS", 1_000_000);
    let mut settings = site.settings();
    settings.log_level = "info";
    let daemon = Daemon::start(&settings);
    let top = Namespace::new(&daemon.client(), "n", Style::New).pull(&image).pop().unwrap().name;
    println!("at the start: {}", Resident::of(&daemon));
    let mut after: Vec<f64> = Vec::new();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| daemon.client()).collect();
    let mut rounds = [0; CLIENTS];
    for (requests, name) in [(FEW, "few"), (many / 4, "a quarter"), (many / 4, "half"), (many / 2, "all")] {
        std::thread::scope(|scope| {
            for (thread, (client, round)) in clients.iter().zip(&mut rounds).enumerate() {
                let (image, top) = (&image, &top);
                scope.spawn(move || use_image(client, image, top, thread, requests / CLIENTS, round));
            }
        });
        let now = Resident::of(&daemon);
        after.push(now.own);
        let (part, threads) = (now.own / after[0], threads(&daemon));
        println!("after {requests:7} more ({name}): {now}, {part:.3} of that after the first; {threads} threads");
    }
    let part = after[after.len() - 1] / after[0];
    assert!(part < GROWTH, "{part:.3} times what it was after {FEW} requests");
}
