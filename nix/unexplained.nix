# The names of those of ./mistakes.nix that the module does not refuse with the message that they name.
{ pkgs }:
let
  inherit (pkgs) lib;
  # The module alone. A whole NixOS for each mistake would say the same in a hundred times as long.
  failed =
    mistake:
    let
      evaluated = lib.evalModules {
        modules = [
          ../nixos-module
          {
            options = {
              assertions = lib.mkOption { type = lib.types.listOf lib.types.raw; };
              # The only option of NixOS that the assertions ask for.
              services.k3s.enable = lib.mkEnableOption "k3s";
            };
            config = {
              _module.args = { inherit pkgs; };
              # What the module sets in NixOS is not looked at.
              _module.check = false;
              services.cvmfs-snapshotter.enable = true;
            };
          }
          mistake.module
        ];
      };
    in
    map (a: a.message) (lib.filter (a: !a.assertion) evaluated.config.assertions);
  isExplained = mistake: lib.any (lib.hasInfix mistake.message) (failed mistake);
in
lib.attrNames (lib.filterAttrs (_: mistake: !isExplained mistake) (import ./mistakes.nix))
