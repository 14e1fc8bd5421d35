//! The configuration file: a text is refused with a message, or comes to a configuration that can work and that is read
//! again from its own dump.
//!
//! An input as text: the file.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use cvmfs_snapshotter::config::{Config, Overrides};

/// Panics unless what is accepted is usable, and what is refused names the file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parse = |text: &str| Config::parse(Path::new("/config.toml"), text, &Overrides::default());
    let config = match parse(text) {
        Ok(config) => config,
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("/config.toml") && message.len() > "/config.toml: ".len(), "{message}");
            return;
        }
    };
    let dump = config.to_toml();
    let again = parse(&dump).unwrap_or_else(|error| panic!("{error}:\n{dump}"));
    assert_eq!((&again, again.to_toml()), (&config, dump));

    assert!(!config.repositories.is_empty());
    let unique = |values: Vec<&str>| values.iter().collect::<HashSet<_>>().len() == values.len();
    assert!(unique(config.repositories.iter().map(|repository| repository.name.as_str()).collect()), "{config:?}");
    let paths = config.repositories.iter().map(|repository| repository.path.as_path());
    for path in paths.chain([config.address.as_path(), config.root.as_path()]) {
        // It becomes an option of overlayfs.
        let text = path.to_str().expect("UTF-8");
        assert!(text.starts_with('/') && !text.contains([':', ',', '\\', '\n', '\0']), "{text:?}");
        assert!(!text.split('/').any(|part| part == ".."), "{text:?}");
    }
    let times = [config.timeouts.probe, config.timeouts.first_mount, config.timeouts.markers];
    assert!(times.iter().all(|time| (Duration::from_nanos(1)..=Duration::from_secs(3600)).contains(time)), "{times:?}");
}
