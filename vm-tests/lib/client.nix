# A stand-in for the package of the CernVM-FS client: the files that the module takes from it, and a mount helper.
{ pkgs }:
pkgs.symlinkJoin {
  name = "cvmfs-client-stand-in";
  paths = [
    (pkgs.writeShellApplication {
      name = "mount.cvmfs";
      runtimeInputs = [
        pkgs.coreutils
        pkgs.mock-cvmfs
        pkgs.util-linux
      ];
      text = builtins.readFile ./mount.cvmfs.sh;
    })
    (pkgs.runCommandLocal "cvmfs-client-configuration" { } ''
      mkdir -p $out/etc/cvmfs/{default.d,domain.d,config.d,keys}
      touch $out/etc/cvmfs/default.conf $out/etc/cvmfs/keys/test.cern.ch.pub
    '')
  ];
}
