# What is the same for every installation; the other options stand in the files that use them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  ours = import ./types.nix { inherit lib; };
  cfg = config.services.cvmfs-snapshotter;

  repository =
    { config, ... }:
    {
      options = {
        name = mkOption {
          type = types.nonEmptyStr;
          example = "unpacked.cern.ch";
          description = "Name in messages; no two repositories have the same. For CernVM-FS its fully qualified name.";
        };
        path = mkOption {
          type = ours.path;
          default = "/cvmfs/${config.name}";
          defaultText = lib.literalExpression ''"/cvmfs/''${name}"'';
          example = "/mnt/layers";
          description = "The directory that holds {file}`.layers`.";
        };
        kind = mkOption {
          type = types.enum [
            "cvmfs"
            "directory"
          ];
          default = "cvmfs";
          description = ''
            `cvmfs` for a mount of the CernVM-FS client, `directory` for anything else: NFS, CephFS, a local disk. Who
            can write to a `directory` is as powerful as root in every container that uses it.
          '';
        };
        verify = mkOption {
          type = types.enum [
            "if-known"
            "required"
            "off"
          ];
          default = "if-known";
          description = ''
            Whether a layer must be the one that the image names: `if-known` compares where the repository records what
            the layer is, `required` downloads a layer without such a record (for nodes with several tenants), `off`
            never compares.
          '';
        };
      };
    };
in
{
  options.services.cvmfs-snapshotter = {
    enable = lib.mkEnableOption "the containerd snapshotter that serves image layers in place from CernVM-FS, NFS or directories";

    package = lib.mkPackageOption pkgs "cvmfs-snapshotter" { };

    address = mkOption {
      type = ours.path;
      default = "/run/containerd-cvmfs-grpc/containerd-cvmfs-grpc.sock";
      description = ''
        The unix socket on which containerd reaches the snapshotter. {command}`nixos-rebuild switch` leaves a running
        socket unit alone: after a change run
        {command}`systemctl restart cvmfs-snapshotter.socket cvmfs-snapshotter.service`.
      '';
    };

    root = mkOption {
      type = ours.path;
      default = "/var/lib/containerd-cvmfs-grpc";
      example = "/data/snapshots";
      description = ''
        The state directory: metadata, and what containers write. It must be on a local file system. A change does not
        move what is there; remove all images and containers of the snapshotter first.
      '';
    };

    repositories = mkOption {
      type = types.listOf (types.submodule repository);
      default = [ { name = "unpacked.cern.ch"; } ];
      example = lib.literalExpression ''
        [
          { name = "unpacked.cern.ch"; }
          { name = "nfs"; path = "/mnt/layers"; kind = "directory"; }
        ]
      '';
      description = ''
        Where layers are looked for, in this order. What {option}`cvmfs.repositories` mounts is added to what is set
        here.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    assertions =
      let
        inherit (cfg.settings) root repositories;
        below = directory: path: path == directory || lib.hasPrefix "${directory}/" path;
        # ProtectHome and PrivateTmp of the service show other directories there.
        hidden =
          path:
          lib.any (d: below d path) [
            "/home"
            "/root"
            "/run/user"
            "/tmp"
            "/var/tmp"
          ];
        names = map (r: r.name) repositories;
        paths = map (r: r.path) repositories;
        repeated = list: lib.unique (lib.filter (x: lib.count (y: x == y) list > 1) list);
      in
      [
        {
          assertion = !hidden root;
          message = "services.cvmfs-snapshotter.root: ${root} is hidden from the service by its sandbox (ProtectHome, PrivateTmp); use a directory below /var/lib or on a disk of its own.";
        }
        {
          assertion = !lib.any hidden paths;
          message = "services.cvmfs-snapshotter.repositories: ${toString (lib.filter hidden paths)} is hidden from the service by its sandbox (ProtectHome, PrivateTmp); mount the repository somewhere else, such as below /mnt.";
        }
        {
          assertion = repeated names == [ ];
          message = "services.cvmfs-snapshotter.repositories: there are several of the name ${toString (repeated names)}; rename all but one, or remove what cvmfs.repositories adds by itself.";
        }
        {
          assertion = repeated paths == [ ];
          message = "services.cvmfs-snapshotter.repositories: ${toString (repeated paths)} is the path of several; remove all but one.";
        }
        {
          assertion = repositories != [ ];
          message = "services.cvmfs-snapshotter.repositories is empty: name at least one repository, or turn the service off.";
        }
        {
          assertion = !(cfg.settings ? repository || cfg.settings ? absolute-mountpoint);
          message = "services.cvmfs-snapshotter.settings: repository and absolute-mountpoint cannot be used beside a list of repositories; make it an entry of services.cvmfs-snapshotter.repositories.";
        }
        {
          assertion = lib.stringLength cfg.settings.address <= 107;
          message = "services.cvmfs-snapshotter.address: a socket's path has at most 107 bytes; choose a shorter one.";
        }
      ];
  };
}
