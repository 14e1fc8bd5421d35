{
  nodes.machine = {
    testbed.repositories = {
      "/srv/layers" = [ "app:1" ];
      "/srv/more" = [ "extra:1" ];
    };
    services.cvmfs-snapshotter = {
      address = "/run/other/snapshotter.sock";
      root = "/data/snapshots";
      repositories = [
        {
          name = "layers";
          path = "/srv/layers";
          kind = "directory";
        }
        {
          name = "more";
          path = "/srv/more";
          kind = "directory";
          verify = "required";
        }
      ];
      settings = {
        log-level = "debug";
        timeouts.probe = "3s";
      };
    };
  };
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./module-options.py;
}
