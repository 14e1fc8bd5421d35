//! Layers that are large in one way: many entries, or deep. `ENTRIES=1000000` makes the first one larger.

use std::time::Instant;

use crate::{none, pull_in_place, top};
use testkit::{Chain, Daemon, Kind, Layer, Mounted, Site};

/// Entries of a directory.
const WIDTH: usize = 500;

fn layer(name: &str, files: impl IntoIterator<Item = String>) -> Layer {
    let mut layer = Layer::new(name, &[]);
    layer.files = files.into_iter().map(|file| (file, String::new())).collect();
    layer
}

#[test]
fn a_layer_with_very_many_entries() {
    let Some(site) = Site::new(Kind::Directory) else { return };
    let entries = std::env::var("ENTRIES").map_or(50_000, |text| text.parse().unwrap());
    let directories = entries / WIDTH;
    let low = layer("low", (0..directories).map(|n| format!("d{n}/gone")));
    let mut files: Vec<String> = (0..entries).map(|n| format!("d{}/f{n}", n / WIDTH)).collect();
    files.extend((0..directories).step_by(10).map(|n| format!("d{n}/.wh.gone")));
    let high = layer("high", files);
    site.publish(&low);
    site.publish(&high);
    let mut settings = site.settings();
    settings.markers = "60s";
    let daemon = Daemon::start(&settings);
    let client = daemon.client();
    let begin = Instant::now();
    let pulled = pull_in_place(&client, &Chain::new("i", &[&low, &high]));
    println!(
        "{entries} entries in {directories} directories: used in place after {:.3} s",
        begin.elapsed().as_secs_f64()
    );
    let mounted = Mounted::new(&client.view("v", top(&pulled), &none()).unwrap());
    let last = directories - 1;
    for (path, is_there) in [
        ("d0/gone".to_owned(), false),
        ("d1/gone".to_owned(), true),
        ("d10/gone".to_owned(), false),
        (format!("d{last}/gone"), !last.is_multiple_of(10)),
        ("d0/.wh.gone".to_owned(), false),
        (format!("d{last}/f{}", entries - 1), true),
    ] {
        assert_eq!(mounted.read(&path).is_some(), is_there, "{path}");
    }
}

on_both! {
    fn a_layer_of_many_levels_with_deletions_on_each(kind) {
        const LEVELS: usize = 200;
        let Some(site) = Site::new(kind) else { return };
        let directory = |level: usize| "d/".repeat(level);
        let low = layer("low", (0..=LEVELS).flat_map(|level| ["gone", "kept"].map(|name| directory(level) + name)));
        let mut files: Vec<String> = (0..LEVELS).map(|level| directory(level) + ".wh.gone").collect();
        files.extend([directory(LEVELS) + ".wh..wh..opq", directory(LEVELS) + "new"]);
        let high = layer("high", files);
        site.publish(&low);
        site.publish(&high);
        let daemon = Daemon::start(&site.settings());
        let client = daemon.client();
        let pulled = pull_in_place(&client, &Chain::new("i", &[&low, &high]));
        let mounted = Mounted::new(&client.view("v", top(&pulled), &none()).unwrap());
        for level in 0..=LEVELS {
            let is_there = |name: &str| mounted.read(&(directory(level) + name)).is_some();
            assert!(!is_there("gone"), "level {level}");
            assert_eq!(is_there("kept"), level < LEVELS, "level {level}");
        }
        assert!(mounted.read(&(directory(LEVELS) + "new")).is_some());
    }
}
