# The CernVM-FS client: its configuration, its user and one automount per repository. The package comes from elsewhere.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  ours = import ./types.nix { inherit lib; };
  cfg = config.services.cvmfs-snapshotter.cvmfs;
  snapshotter = config.services.cvmfs-snapshotter;

  line = name: value: "${name}=${lib.escapeShellArg (toString value)}";
  settings = lib.filterAttrs (_: value: value != null) cfg.settings;
in
{
  options.services.cvmfs-snapshotter.cvmfs = {
    enable = lib.mkEnableOption "the CernVM-FS client, with automounts below {file}`/cvmfs`";

    package = mkOption {
      type = types.package;
      default =
        pkgs.cvmfs or (throw ''
          services.cvmfs-snapshotter.cvmfs.package: this nixpkgs has no package of the CernVM-FS client.
          Take one from a flake that has it, for instance github:olantwin/nixos-cvmfs (x86_64-linux):
            services.cvmfs-snapshotter.cvmfs.package = inputs.nixos-cvmfs.packages.''${system}.cvmfs;
          or leave services.cvmfs-snapshotter.cvmfs.enable off and mount the repositories yourself.'');
      defaultText = lib.literalExpression "pkgs.cvmfs";
      description = ''
        The client. It must have {file}`bin/mount.cvmfs` and, in {file}`etc/cvmfs`, {file}`default.conf`,
        {file}`default.d`, {file}`domain.d`, {file}`config.d` and {file}`keys`.
      '';
    };

    repositories = mkOption {
      type = types.listOf ours.fqrn;
      default = [ "unpacked.cern.ch" ];
      description = "The repositories to mount, and to look for layers in.";
    };

    settings = mkOption {
      type = types.attrsOf (
        types.nullOr (
          types.oneOf [
            types.str
            types.int
          ]
        )
      );
      default = { };
      example = {
        CVMFS_HTTP_PROXY = "http://squid.example.org:3128";
        CVMFS_QUOTA_LIMIT = 20000;
      };
      description = ''
        Parameters of the client, for {file}`/etc/cvmfs/default.local`; `null` leaves one out. `CVMFS_HTTP_PROXY` is
        mandatory unless `CVMFS_CLIENT_PROFILE` is `single`. `CVMFS_CLAIM_OWNERSHIP` is `no`, because containers need
        the owners that files have in their image.
      '';
    };

    fileSystems = mkOption {
      type = types.attrsOf types.raw;
      readOnly = true;
      internal = true;
      description = "What goes into {option}`fileSystems`; a virtual machine takes it from here, as it replaces those.";
      default = lib.listToAttrs (
        map (repository: {
          name = "/cvmfs/${repository}";
          value = {
            device = repository;
            fsType = "cvmfs";
            # Else fstab asks for a check of the file system before it is mounted.
            noCheck = true;
            options = [
              "_netdev"
              "nodev"
              # Without nofail, which would lift the order: the automount is there before remote-fs.target, and so before
              # the snapshotter. It cannot fail at boot, as nothing is mounted then.
              "x-systemd.automount"
              # Never unmounted when idle: containers hold layers there.
              "x-systemd.idle-timeout=0"
            ];
          };
        }) cfg.repositories
      );
    };
  };

  config = lib.mkIf (snapshotter.enable && cfg.enable) {
    services.cvmfs-snapshotter = {
      repositories = map (name: { inherit name; }) cfg.repositories;
      cvmfs.settings = {
        CVMFS_REPOSITORIES = lib.mkDefault (lib.concatStringsSep "," cfg.repositories);
        CVMFS_CLAIM_OWNERSHIP = lib.mkDefault "no";
        CVMFS_CACHE_BASE = lib.mkDefault "/var/lib/cvmfs";
      };
    };

    inherit (cfg) fileSystems;
    # The helper that mount(8) calls.
    system.fsPackages = [ cfg.package ];
    environment.systemPackages = [ cfg.package ];
    boot.kernelModules = [ "fuse" ];
    # The client mounts as its own user; without this its mounts would be closed to containers that do not run as root.
    programs.fuse = {
      userAllowOther = true;
    }
    # Older releases have no such option, and what it stands for always.
    // lib.optionalAttrs (options ? programs.fuse.enable) {
      enable = lib.mkDefault true;
    };

    users.users.cvmfs = {
      isSystemUser = true;
      group = "cvmfs";
      description = "CernVM-FS client";
    };
    users.groups.cvmfs = { };

    environment.etc =
      lib.genAttrs
        (map (name: "cvmfs/${name}") [
          "default.conf"
          "default.d"
          "domain.d"
          "config.d"
          "keys"
        ])
        (path: {
          source = "${cfg.package}/etc/${path}";
        })
      // {
        "cvmfs/default.local".text = lib.concatLines (lib.mapAttrsToList line settings);
      };

    systemd.tmpfiles.settings."10-cvmfs" =
      let
        owned = mode: {
          d = {
            inherit mode;
            user = "cvmfs";
            group = "cvmfs";
          };
        };
      in
      {
        ${toString (settings.CVMFS_CACHE_BASE or "/var/lib/cvmfs")} = owned "0700";
        # Sockets of the client (CVMFS_RELOAD_SOCKETS).
        "/run/cvmfs" = owned "0755";
      };

    assertions = [
      {
        assertion = settings ? CVMFS_HTTP_PROXY || (settings.CVMFS_CLIENT_PROFILE or null) == "single";
        message = ''services.cvmfs-snapshotter.cvmfs.settings: the CernVM-FS client needs a proxy. Set CVMFS_HTTP_PROXY to that of your site, or CVMFS_CLIENT_PROFILE = "single" on a single machine.'';
      }
      {
        assertion = (settings.CVMFS_CLAIM_OWNERSHIP or "yes") == "no";
        message = ''services.cvmfs-snapshotter.cvmfs.settings: with CVMFS_CLAIM_OWNERSHIP other than "no" every file of an image belongs to the user cvmfs; remove the setting.'';
      }
    ];
  };
}
