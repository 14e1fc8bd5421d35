# `nix flake check`, without the VM tests.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  outputs = lib.mapAttrs (_: output: output.${pkgs.stdenv.hostPlatform.system}) {
    inherit (self) packages devShells;
  };
  package = pkgs.cvmfs-snapshotter;
  documentation = import ./options-doc.nix { inherit pkgs; };

  lint = pkgs.callPackage ./lint.nix { };

  nixFiles = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.fileFilter (file: file.hasExt "nix") ../.;
  };

  # A system with the module and nothing else said about it.
  system = self.inputs.nixpkgs.lib.nixosSystem {
    modules = [
      self.nixosModules.default
      # As someone has it who imports both; it counts once.
      (import ../nixos-module)
      {
        # Not nixpkgs.hostPlatform, which would evaluate nixpkgs once more.
        nixpkgs = { inherit pkgs; };
        system.stateVersion = lib.trivial.release;
        fileSystems."/" = {
          device = "/dev/vda1";
          fsType = "ext4";
        };
        boot.loader.grub.enable = false;
        services.cvmfs-snapshotter.enable = true;
      }
    ];
  };
  inherit (system.config.systemd) units;

  # Mistakes, and what the user has to be told.
  unexplained = import ./unexplained.nix { inherit pkgs; };
in
{
  inherit package;
  clippy = lint {
    name = "clippy";
    inputs = [ pkgs.clippy ];
    command = "cargo clippy --offline --workspace --all-targets -- --deny warnings";
  };
  rustfmt = lint {
    name = "rustfmt";
    inputs = [ pkgs.rustfmt ];
    command = "cargo fmt --all --check";
  };

  inherit (outputs.packages) image;
  # Made a second time, it is the same. It starts later, so that a time of its making would show.
  image-twice =
    let
      inherit (outputs.packages) image;
      second = image.overrideAttrs (old: {
        buildCommand = "sleep 2\n" + old.buildCommand;
      });
    in
    pkgs.runCommand "image-twice-check" { } ''
      cmp ${image} ${second}
      touch $out
    '';

  dev-shell = outputs.devShells.default;

  nixfmt = pkgs.runCommand "nixfmt-check" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
    find ${nixFiles} -name '*.nix' -exec nixfmt --check {} +
    touch $out
  '';

  inherit (documentation) options-doc;
  options-table = pkgs.runCommand "options-table-check" { } ''
    diff -u ${../docs/nixos-options.md} ${documentation.options-table} || {
      echo 'docs/nixos-options.md is not what the module says: cp $(nix build --print-out-paths .#options-table) docs/nixos-options.md'
      exit 1
    }
    touch $out
  '';

  dist-units = pkgs.runCommand "dist-units-check" { nativeBuildInputs = [ pkgs.python3 ]; } (
    lib.concatMapStrings
      (name: ''
        python3 ${../dist/systemd/compare.py} ${../dist/systemd}/${name} ${units.${name}.unit}/${name}
      '')
      [
        "cvmfs-snapshotter.service"
        "cvmfs-snapshotter.socket"
      ]
    + "touch $out"
  );

  module-messages =
    if unexplained == [ ] then
      pkgs.runCommand "module-messages-check" { } "touch $out"
    else
      throw "the module does not explain: ${toString unexplained}";
}
