# Every vm-tests/NAME.nix becomes the check vm-NAME.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  folder = ../vm-tests;
  isTest = name: type: type == "regular" && lib.hasSuffix ".nix" name;
  check =
    file: _:
    let
      name = lib.removeSuffix ".nix" file;
    in
    lib.nameValuePair "vm-${name}" (
      pkgs.testers.runNixOSTest {
        imports = [
          ../vm-tests/lib
          (folder + "/${file}")
        ];
        inherit name;
        defaults.imports = [ self.nixosModules.default ];
      }
    );
in
lib.mapAttrs' check (lib.filterAttrs isTest (builtins.readDir folder))
