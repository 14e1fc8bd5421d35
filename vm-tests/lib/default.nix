# What all VM tests share: every machine is a testbed.
{
  # No test boots more than two machines; the slowest, k3s, takes some minutes where there is KVM.
  globalTimeout = 1200;
  defaults.imports = [ ./testbed.nix ];
}
