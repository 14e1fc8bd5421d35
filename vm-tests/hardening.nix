{
  nodes.machine = { };
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./hardening.py;
}
