# Configurations that the module refuses, each with a part of the message that must name the mistake and its remedy.
{
  hidden-root = {
    module.services.cvmfs-snapshotter.root = "/home/snapshots";
    message = "is hidden from the service by its sandbox";
  };
  hidden-repository = {
    module.services.cvmfs-snapshotter.repositories = [
      {
        name = "x";
        path = "/tmp/layers";
        kind = "directory";
      }
    ];
    message = "mount the repository somewhere else";
  };
  repeated-name = {
    module.services.cvmfs-snapshotter.repositories = [
      { name = "x"; }
      {
        name = "x";
        path = "/mnt/x";
      }
    ];
    message = "there are several of the name x";
  };
  repeated-path = {
    module.services.cvmfs-snapshotter.repositories = [
      { name = "x"; }
      {
        name = "y";
        path = "/cvmfs/x";
      }
    ];
    message = "is the path of several";
  };
  no-repository = {
    module.services.cvmfs-snapshotter.repositories = [ ];
    message = "name at least one repository";
  };
  keys-of-the-go-daemon = {
    module.services.cvmfs-snapshotter.settings.repository = "sft.cern.ch";
    message = "make it an entry of services.cvmfs-snapshotter.repositories";
  };
  long-address = {
    module.services.cvmfs-snapshotter.address = "/run/${
      builtins.concatStringsSep "" (builtins.genList (_: "x") 110)
    }";
    message = "at most 107 bytes";
  };
  no-proxy = {
    module.services.cvmfs-snapshotter.cvmfs.enable = true;
    message = "Set CVMFS_HTTP_PROXY";
  };
  claimed-ownership = {
    module.services.cvmfs-snapshotter.cvmfs = {
      enable = true;
      settings = {
        CVMFS_CLIENT_PROFILE = "single";
        CVMFS_CLAIM_OWNERSHIP = "yes";
      };
    };
    message = "every file of an image belongs to the user cvmfs";
  };
  k3s-without-k3s = {
    module.services.cvmfs-snapshotter.k3s.enable = true;
    message = "set services.k3s.enable";
  };
  k3s-and-containerd = {
    module.services.cvmfs-snapshotter = {
      k3s.enable = true;
      containerd.enable = true;
    };
    message = "cannot share one snapshotter";
  };
}
