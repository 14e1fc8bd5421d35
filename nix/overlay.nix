final: _prev: {
  cvmfs-snapshotter = final.callPackage ./package.nix { };
  # A stand-in for a CernVM-FS client, for the VM tests.
  mock-cvmfs = final.callPackage ./mock-cvmfs.nix { };
}
