# containerd's side.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cvmfs-snapshotter;
  cri = {
    snapshotter = "cvmfs-snapshotter";
    disable_snapshot_annotations = false;
  };
in
{
  options.services.cvmfs-snapshotter.containerd = {
    enable = mkOption {
      type = types.bool;
      default = !cfg.k3s.enable;
      defaultText = lib.literalExpression "!config.services.cvmfs-snapshotter.k3s.enable";
      description = ''
        Whether to run containerd and to make the snapshotter known to it, through
        {option}`virtualisation.containerd.settings`. containerd's own overlayfs stays usable beside it.
      '';
    };
    defaultForCri = lib.mkEnableOption "the snapshotter for all pods, instead of overlayfs, where containerd serves Kubernetes";
  };

  config = lib.mkIf (cfg.enable && cfg.containerd.enable) {
    virtualisation.containerd = {
      enable = lib.mkDefault true;
      settings = lib.mkMerge [
        {
          # nerdctl knows this name and no other.
          proxy_plugins.cvmfs-snapshotter = {
            type = "snapshot";
            inherit (cfg.settings) address;
            # Pods in a user namespace fail at once, instead of having the whole image copied.
            capabilities = [ "only-remap-ids" ];
            exports = {
              # What kubelet takes for the file system of images.
              inherit (cfg.settings) root;
              # A string: containerd's exports are strings. Without it the snapshotter never learns a layer's digest.
              enable_remote_snapshot_annotations = "true";
            };
          };
          # The list replaces containerd's own, so that overlayfs has to be named too.
          plugins."io.containerd.transfer.v1.local".unpack_config =
            map
              (snapshotter: {
                platform = "linux";
                inherit snapshotter;
                differ = "walking";
              })
              [
                "overlayfs"
                "cvmfs-snapshotter"
              ];
        }
        (lib.mkIf cfg.containerd.defaultForCri {
          # NixOS writes a file of version 2, in which these keys have their place in the second section. But from there
          # containerd 2 takes them only if `runtimes` is set as well, and drops them without a word if it is not.
          plugins."io.containerd.cri.v1.images" = cri;
          # If it is set, as by services.kubernetes, this one wins, and with ZFS NixOS has its own value for it.
          plugins."io.containerd.grpc.v1.cri".containerd = cri;
        })
      ];
    };
  };
}
