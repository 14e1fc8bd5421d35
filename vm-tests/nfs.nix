# The server has the layers and nothing else, the client everything else.
{
  nodes = {
    server = {
      services.cvmfs-snapshotter.enable = false;
      testbed.registry = false;
      services.nfs.server = {
        enable = true;
        # Files of an image are readable for their owner only, if the image says so.
        exports = "/srv/layers *(ro,no_root_squash,no_subtree_check)\n";
      };
      systemd.services.nfs-server = {
        after = [ "repository.service" ];
        requires = [ "repository.service" ];
      };
    };
    client = {
      testbed.repositories = { };
      virtualisation.fileSystems."/mnt/layers" = {
        device = "server:/srv/layers";
        fsType = "nfs";
        options = [
          "ro"
          "nfsvers=4.2"
          "nofail"
          "x-systemd.automount"
          "x-systemd.idle-timeout=0"
        ];
      };
      services.cvmfs-snapshotter.repositories = [
        {
          name = "nfs";
          path = "/mnt/layers";
          kind = "directory";
        }
      ];
    };
  };
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./nfs.py;
}
