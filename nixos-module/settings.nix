# The configuration file: typed where the keys are known, free for the rest, and checked by the daemon itself when the
# system is built.
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
  format = pkgs.formats.toml { };

  limit =
    description:
    mkOption {
      type = types.nullOr ours.duration;
      default = null;
      example = "5s";
      inherit description;
    };

  # Unset keys are left to the daemon's own defaults.
  file = format.generate "cvmfs-snapshotter.toml" (
    lib.filterAttrsRecursive (_: value: value != null) cfg.settings
  );
  checkedFile =
    if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
      pkgs.runCommandLocal "cvmfs-snapshotter-checked.toml" { } ''
        ${lib.getExe cfg.package} --config ${file} config check
        cp ${file} $out
      ''
    else
      file;
in
{
  options.services.cvmfs-snapshotter = {
    settings = mkOption {
      type = types.submodule {
        freeformType = format.type;
        options = {
          address = mkOption {
            type = ours.path;
            default = cfg.address;
            defaultText = lib.literalExpression "config.services.cvmfs-snapshotter.address";
            description = "As {option}`services.cvmfs-snapshotter.address`, which is the better place.";
          };
          root = mkOption {
            type = ours.path;
            default = cfg.root;
            defaultText = lib.literalExpression "config.services.cvmfs-snapshotter.root";
            description = "As {option}`services.cvmfs-snapshotter.root`, which is the better place.";
          };
          repositories = mkOption {
            type = types.listOf format.type;
            default = cfg.repositories;
            defaultText = lib.literalExpression "config.services.cvmfs-snapshotter.repositories";
            description = "As {option}`services.cvmfs-snapshotter.repositories`, which is the better place.";
          };
          log-level = mkOption {
            type = types.enum [
              "trace"
              "debug"
              "info"
              "warn"
              "error"
            ];
            default = "info";
            description = "The least severity that is logged.";
          };
          log-format = mkOption {
            type = types.enum [
              "auto"
              "text"
              "json"
            ];
            default = "auto";
            description = "The form of the log: `auto` for the journal with its fields, and text where there is none.";
          };
          timeouts = {
            probe = limit "How long one step of a request to a repository may take (the daemon's default: 2s).";
            first-mount = limit "How long the first answer of a repository may take, and one that waits for an automount (the daemon's default: 30s).";
            markers = limit "How long looking for the deletions of a layer may take within a pull (the daemon's default: 10s).";
          };
        };
      };
      default = { };
      example = {
        log-level = "debug";
        timeouts.first-mount = "1m";
      };
      description = ''
        The configuration file of the daemon. Keys without an option of their own are passed on as they are. A file that
        the daemon refuses fails the build of the system, not its start.
      '';
    };

    configFile = mkOption {
      type = types.path;
      readOnly = true;
      internal = true;
      description = "The configuration file as the daemon has checked it.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.cvmfs-snapshotter.configFile = checkedFile;
    # For the commands that an administrator calls: `cvmfs-snapshotter health` has to know the socket.
    environment.etc."containerd-cvmfs-grpc/config.toml".source = checkedFile;
  };
}
