# The socket and the service.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.cvmfs-snapshotter;
  inherit (cfg.settings) address root;
  # systemd makes directories below /var/lib itself, with the right mode and writable in the sandbox.
  isState = lib.hasPrefix "/var/lib/" root;
  clients = [ "containerd.service" ] ++ lib.optional cfg.k3s.enable "k3s.service";
in
{
  config = lib.mkIf cfg.enable {
    systemd.sockets.cvmfs-snapshotter = {
      description = "Socket of the CernVM-FS snapshotter for containerd";
      wantedBy = [ "sockets.target" ];
      # Clients stop first, and find a socket when they start.
      before = clients;
      socketConfig = {
        ListenStream = address;
        Accept = false;
        SocketMode = "0600";
        DirectoryMode = "0700";
      };
    };

    systemd.services.cvmfs-snapshotter = {
      description = "CernVM-FS snapshotter for containerd";
      documentation = [ "man:cvmfs-snapshotter(1)" ];
      # The first request would start it too, but what is wrong with it should show at boot.
      wantedBy = [ "multi-user.target" ];
      requires = [ "cvmfs-snapshotter.socket" ];
      after = [
        "cvmfs-snapshotter.socket"
        "local-fs.target"
        "remote-fs.target"
      ];
      before = clients;
      # A new binary or configuration restarts the service alone; the default would stop the socket as well, and refuse
      # connections until both are back. Containers are not concerned: they belong to containerd's shims.
      stopIfChanged = false;
      unitConfig = {
        RequiresMountsFor = [ root ];
        # Keep trying, also after an error in the configuration: while connections wait on the socket, a service that has
        # given up would be started again at once and for ever.
        StartLimitIntervalSec = 0;
      };
      # Memory that is free goes back to the system, at no cost that could be measured.
      environment.GLIBC_TUNABLES = lib.concatStringsSep ":" [
        "glibc.malloc.arena_max=1"
        "glibc.malloc.tcache_count=0"
        "glibc.malloc.mmap_threshold=1048576"
        "glibc.malloc.trim_threshold=1048576"
      ];
      serviceConfig = import ./sandbox.nix // {
        Type = "notify";
        # The file's store path changes with its content, which is what restarts the service.
        ExecStart = "${lib.getExe cfg.package} --config ${cfg.configFile}";
        ExecReload = "${lib.getExe' pkgs.coreutils "kill"} -HUP $MAINPID";
        WatchdogSec = "30s";
        TimeoutStopSec = "30s";
        Restart = "always";
        RestartSec = "1s";
        # Every container on the node depends on it, as on containerd.
        OOMScoreAdjust = -999;
        LimitNOFILE = 65536;
        StateDirectory = lib.mkIf isState (lib.removePrefix "/var/lib/" root);
        StateDirectoryMode = "0700";
        ReadWritePaths = lib.mkIf (!isState) [ root ];
      };
    };

    systemd.tmpfiles.settings = lib.mkIf (!isState) {
      "10-cvmfs-snapshotter".${root}.d = {
        mode = "0700";
        user = "root";
        group = "root";
      };
    };
  };
}
