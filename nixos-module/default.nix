# services.cvmfs-snapshotter
{
  # One key, wherever this folder was imported from: beside the flake's module, which has it too, it counts once.
  key = "cvmfs-snapshotter#nixos-module";
  _file = ./default.nix;
  imports = [
    ./options.nix
    ./settings.nix
    ./service.nix
    ./containerd.nix
    ./cvmfs.nix
    ./k3s.nix
  ];
}
