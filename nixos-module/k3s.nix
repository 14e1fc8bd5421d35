# k3s brings a containerd of its own, which only a template of its configuration reaches.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.cvmfs-snapshotter;
  hasTemplate = options ? services.k3s.containerdConfigTemplate;
  quoted = builtins.toJSON;
in
{
  options.services.cvmfs-snapshotter.k3s = {
    enable = lib.mkEnableOption "the snapshotter for all pods of k3s";
    containerdConfigTemplate = mkOption {
      type = types.lines;
      readOnly = true;
      description = ''
        The template that makes the snapshotter known to the containerd of k3s. {option}`k3s.enable` uses it; it is
        here for those who have a template of their own to add it to.
      '';
      defaultText = lib.literalMD "k3s' own template, and the sections for the snapshotter";
      default = ''
        {{ template "base" . }}

        [proxy_plugins."cvmfs-snapshotter"]
          type = "snapshot"
          address = ${quoted cfg.settings.address}
          capabilities = ["only-remap-ids"]
        [proxy_plugins."cvmfs-snapshotter".exports]
          root = ${quoted cfg.settings.root}
          enable_remote_snapshot_annotations = "true"

        [[plugins."io.containerd.transfer.v1.local".unpack_config]]
          platform = "linux"
          snapshotter = "overlayfs"
          differ = "walking"
        [[plugins."io.containerd.transfer.v1.local".unpack_config]]
          platform = "linux"
          snapshotter = "cvmfs-snapshotter"
          differ = "walking"
      '';
    };
  };

  config = lib.mkIf (cfg.enable && cfg.k3s.enable) {
    # The key of the CRI section stands in k3s' own part of the template, where only this flag changes it.
    services.k3s = {
      extraFlags = [ "--snapshotter=cvmfs-snapshotter" ];
    }
    // lib.optionalAttrs hasTemplate {
      inherit (cfg.k3s) containerdConfigTemplate;
    };
    # What the option does where it is there.
    systemd.tmpfiles.settings = lib.mkIf (!hasTemplate) {
      "10-cvmfs-snapshotter-k3s"."/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"."L+".argument =
        toString (pkgs.writeText "config.toml.tmpl" cfg.k3s.containerdConfigTemplate);
    };

    assertions = [
      {
        assertion = config.services.k3s.enable;
        message = "services.cvmfs-snapshotter.k3s.enable is for nodes with k3s: set services.k3s.enable, or use services.cvmfs-snapshotter.containerd.";
      }
      {
        assertion = !cfg.containerd.enable;
        message = "services.cvmfs-snapshotter: k3s and containerd.enable cannot share one snapshotter, as each would collect the other's snapshots as garbage; set services.cvmfs-snapshotter.containerd.enable = false.";
      }
    ];
  };
}
