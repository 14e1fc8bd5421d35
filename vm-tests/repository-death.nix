{
  nodes.machine.imports = [ ./lib/behind-cvmfs.nix ];
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./repository-death.py;
}
