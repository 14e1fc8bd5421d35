//! What hangs with a repository: one thread that asks it, and those that walk through a layer at that moment.

use std::time::Duration;

use testkit::mock::waiting_in_fuse;
use testkit::{Chain, Client, Daemon, Kind, Labels, Layer, Namespace, Site, Style, eventually, extract_key};

fn none() -> Labels {
    Labels::new()
}

/// Requests of all kinds that want the repository, from many clients.
fn insist(daemon: &Daemon, images: &[Chain], top: &str) {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let client: Client = daemon.client();
                for (round, image) in images.iter().enumerate() {
                    let target = &image.ids()[0];
                    let key = extract_key(&format!("h{number}"), u64::try_from(round).unwrap(), target);
                    let _ = client.prepare(&key, "", &image.labels(0, Style::New));
                    let _ = client.prepare(&format!("h{number} {round}"), top, &none());
                    let _ = client.view(&format!("hv{number} {round}"), top, &none());
                    let _ = client.mounts("k");
                }
            });
        }
    });
}

#[test]
fn one_thread_hangs_with_a_repository() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let layers: Vec<Layer> = (0..6).map(|n| Layer::new(&format!("l{n}"), &[("d/.wh.a", ""), ("d/b", "b")])).collect();
    layers.iter().for_each(|layer| site.publish(layer));
    let images: Vec<Chain> = layers.iter().map(|layer| Chain::new("i", &[layer])).collect();
    let daemon = Daemon::start(&site.short_limits());
    let client = daemon.client();
    let pulled = Namespace::new(&client, "default", Style::New).pull(&images[0]);
    let top = pulled[0].name.as_str();
    client.prepare("k", top, &none()).unwrap();
    eventually("it rests", || waiting_in_fuse(daemon.pid()).is_empty());
    site.mock().hang();
    insist(&daemon, &images, top);
    let hanging = waiting_in_fuse(daemon.pid());
    assert_eq!(hanging.len(), 1, "{hanging:?}");
    insist(&daemon, &images, top);
    assert_eq!(waiting_in_fuse(daemon.pid()), hanging);
    site.mock().unhang();
    eventually("it is let go", || waiting_in_fuse(daemon.pid()).is_empty());
    eventually("it recovers", || client.mounts("k").is_ok());
}

#[test]
fn walks_that_hang_with_a_repository_are_bounded() {
    let Some(site) = Site::on_fuse(Kind::Cvmfs) else { return };
    let files: Vec<String> = (0..200).map(|n| format!("d{n}/f")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "x")).collect();
    let layers: Vec<Layer> = (0..6).map(|n| Layer::new(&format!("wide {n}"), &files)).collect();
    layers.iter().for_each(|layer| site.publish(layer));
    let images: Vec<Chain> = layers.iter().map(|layer| Chain::new("i", &[layer])).collect();
    let small = Layer::new("small", &[("f", "f")]);
    site.publish(&small);
    let mut settings = site.short_limits();
    settings.markers = "1s";
    let daemon = Daemon::start(&settings);
    let client = daemon.client();
    let pulled = Namespace::new(&client, "default", Style::New).pull(&Chain::new("small", &[&small]));
    client.prepare("k", &pulled[0].name, &none()).unwrap();
    site.mock().slow(Duration::from_millis(20));
    insist(&daemon, &images[..2], &pulled[0].name);
    site.mock().hang();
    insist(&daemon, &images, &pulled[0].name);
    let hanging = waiting_in_fuse(daemon.pid());
    let walking = hanging.iter().filter(|name| name.starts_with("walk")).count();
    assert!(
        (1..=4).contains(&walking) && hanging.len() <= walking + 1,
        "those that walk and one that asks: {hanging:?}"
    );
    site.mock().slow(Duration::ZERO);
    site.mock().unhang();
    eventually("it is let go", || waiting_in_fuse(daemon.pid()).is_empty());
    eventually("it recovers", || client.mounts("k").is_ok());
}
