# The machine of `nix run .#demo`: it logs in by itself, pulls and runs an image without downloading a layer, and says
# what to try next. Its disk is in memory; nothing is left behind. The first time Nix compiles the snapshotter for it, and
# no other package: none is changed, so that NixOS' binary cache has the rest.
{
  lib,
  modulesPath,
  pkgs,
  ...
}:
let
  demo = pkgs.writeShellApplication {
    name = "demo";
    runtimeInputs = [ pkgs.nerdctl ];
    text = builtins.readFile ./demo.sh;
  };
in
{
  imports = [
    "${modulesPath}/virtualisation/qemu-vm.nix"
    ../vm-tests/lib/testbed.nix
  ];

  networking.hostName = "demo";
  system.stateVersion = lib.trivial.release;
  documentation.enable = false;
  virtualisation = {
    memorySize = 2048;
    graphics = false;
    diskImage = null;
  };
  users.users.root.hashedPassword = "";
  services.getty = {
    autologinUser = "root";
    helpLine = lib.mkForce "";
  };
  environment.systemPackages = [ demo ];
  # On the console only, not in a shell inside the shell.
  programs.bash.loginShellInit = ''
    if [ "$(tty)" != "not a tty" ] && [ ! -e /run/demo-was-shown ]; then
      touch /run/demo-was-shown
      demo || true
    fi
  '';
}
