# services.cvmfs-snapshotter
{
  imports = [
    ./options.nix
    ./settings.nix
    ./service.nix
    ./containerd.nix
    ./cvmfs.nix
    ./k3s.nix
  ];
}
