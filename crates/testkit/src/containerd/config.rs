//! The configuration of containerd, as we tell people to write it, and what the tests need besides.

use std::path::Path;

use super::{Snapshotter, Version};

/// Renders the configuration for a containerd whose folder is `dir`.
pub(super) fn render(version: Version, dir: &Path, snapshotter: Snapshotter<'_>, pause: &str) -> String {
    let name = snapshotter.name();
    let dir = dir.display();
    match version {
        Version::V1_6 | Version::V1_7 => format!(
            r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{name}"
    disable_snapshot_annotations = false
{}"#,
            proxy_plugin(snapshotter, "", "")
        ),
        Version::V2_3 | Version::V2_4 => {
            let unpack = match snapshotter {
                Snapshotter::Overlayfs => unpack_config("overlayfs"),
                // Setting this replaces the default, so the default is repeated.
                Snapshotter::Cvmfs(_) => unpack_config("overlayfs") + &unpack_config(name),
            };
            format!(
                r#"version = 3
{}[plugins.'io.containerd.internal.v1.opt']
  path = "{dir}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.transfer.v1.local']
  config_path = "{dir}/certs.d"
{unpack}[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{name}"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "{dir}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    conf_dir = "{dir}/cni"
"#,
                proxy_plugin(
                    snapshotter,
                    "    capabilities = [\"only-remap-ids\"]\n",
                    "      enable_remote_snapshot_annotations = \"true\"\n"
                ),
            )
        }
    }
}

fn proxy_plugin(snapshotter: Snapshotter<'_>, more: &str, exports: &str) -> String {
    let Snapshotter::Cvmfs(daemon) = snapshotter else {
        return String::new();
    };
    let (socket, root) = (daemon.socket(), daemon.root());
    format!(
        r#"[proxy_plugins]
  [proxy_plugins.cvmfs-snapshotter]
    type = "snapshot"
    address = "{}"
{more}    [proxy_plugins.cvmfs-snapshotter.exports]
      root = "{}"
{exports}"#,
        socket.display(),
        root.display()
    )
}

fn unpack_config(snapshotter: &str) -> String {
    format!(
        r#"  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
    platform = "linux"
    snapshotter = "{snapshotter}"
    differ = "walking"
"#
    )
}
