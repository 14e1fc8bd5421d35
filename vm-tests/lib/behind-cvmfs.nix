# A machine whose repository is a CernVM-FS repository, mounted by the module.
{ config, pkgs, ... }:
{
  testbed.repositories."/srv/cvmfs/test.cern.ch" = [
    "app:1"
    "pause:1"
  ];
  services.cvmfs-snapshotter = {
    cvmfs = {
      enable = true;
      package = import ./client.nix { inherit pkgs; };
      repositories = [ "test.cern.ch" ];
      settings.CVMFS_CLIENT_PROFILE = "single";
    };
  };
  # Virtual machines of tests replace fileSystems.
  virtualisation = { inherit (config.services.cvmfs-snapshotter.cvmfs) fileSystems; };
  # The mount waits for the repository to be unpacked, as for a server.
  systemd.services.repository.before = [ "cvmfs-test.cern.ch.mount" ];
}
