//! `containerd-config`: the block that makes containerd use the daemon.

use std::process::ExitCode;

use super::global::{EXIT_CONFIG, Global, fail};
use crate::config::Config;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The version of containerd: 1.7 (also for 1.6) or 2 (2.1 and later).
    #[arg(long = "for", value_name = "VERSION", value_enum)]
    version: Version,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Version {
    #[value(name = "1.7", alias = "1.6")]
    One,
    #[value(name = "2")]
    Two,
}

pub(super) fn run(global: &Global, args: &Args) -> ExitCode {
    match global.load() {
        Ok(config) => {
            print!("{}", block(&config, args.version));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, EXIT_CONFIG),
    }
}

fn block(config: &Config, version: Version) -> String {
    let [address, root] = [&config.address, &config.root].map(|path| toml::Value::from(path.display().to_string()));
    match version {
        Version::One => format!(
            r#"# For containerd 1.6 and 1.7. The plugin must have exactly this name: nerdctl knows it.
version = 2

[proxy_plugins.cvmfs-snapshotter]
  type = "snapshot"
  address = {address}
  # What kubelet sees as the file system of the images.
  [proxy_plugins.cvmfs-snapshotter.exports]
    root = {root}

# For Kubernetes: use it for all pods, and tell it which layers an image has.
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "cvmfs-snapshotter"
  disable_snapshot_annotations = false
"#
        ),
        Version::Two => format!(
            r#"# For containerd 2.1 and later. The plugin must have exactly this name: nerdctl knows it.
version = 3

[proxy_plugins.cvmfs-snapshotter]
  type = "snapshot"
  address = {address}
  # A pod with a user namespace fails at once, instead of copying its whole image.
  capabilities = ["only-remap-ids"]
  [proxy_plugins.cvmfs-snapshotter.exports]
    # What kubelet sees as the file system of the images.
    root = {root}
    # Tells the snapshotter which layers an image has.
    enable_remote_snapshot_annotations = "true"

# This list replaces containerd's own, so it names overlayfs as well.
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
  differ = "walking"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "cvmfs-snapshotter"
  differ = "walking"

# For Kubernetes: use it for all pods.
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "cvmfs-snapshotter"
"#
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn rule_01_the_plugin_has_its_exact_name_and_the_paths_in_effect() {
        let config = Config::parse(Path::new("c"), "address = '/a.sock'\nroot = '/r'", &Overrides::default()).unwrap();
        for version in [Version::One, Version::Two] {
            let text = block(&config, version);
            let table: toml::Table = text.parse().unwrap();
            let plugins = table["proxy_plugins"].as_table().unwrap();
            assert_eq!(plugins.keys().collect::<Vec<_>>(), ["cvmfs-snapshotter"]);
            let plugin = &plugins["cvmfs-snapshotter"];
            assert_eq!(plugin["address"].as_str(), Some("/a.sock"));
            assert_eq!(plugin["exports"]["root"].as_str(), Some("/r"));
        }
        insta::assert_snapshot!(block(&config, Version::One) + "\n" + &block(&config, Version::Two));
    }

    #[test]
    fn paths_are_toml_whatever_is_in_them() {
        // Rust would print the accent, which joins with the letter before it, in a form that TOML does not have.
        let (address, root) = ("/srv/cafe\u{301}/a\"b.sock", "/srv/'quoted'");
        let overrides = Overrides { address: Some(address.into()), root: Some(root.into()), log_level: None };
        let config = Config::parse(Path::new("c"), "", &overrides).unwrap();
        for version in [Version::One, Version::Two] {
            let table: toml::Table = block(&config, version).parse().unwrap();
            let plugin = &table["proxy_plugins"]["cvmfs-snapshotter"];
            assert_eq!(plugin["address"].as_str(), Some(address));
            assert_eq!(plugin["exports"]["root"].as_str(), Some(root));
        }
    }
}
