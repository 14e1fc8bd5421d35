{
  nodes.machine.imports = [ ./lib/behind-cvmfs.nix ];
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./automount.py;
}
