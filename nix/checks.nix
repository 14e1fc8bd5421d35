# `nix flake check`, without the VM tests.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  package = pkgs.cvmfs-snapshotter;
  documentation = import ./options-doc.nix { inherit pkgs; };

  # cargo with the sources and the vendored crates of the package.
  cargo =
    name: inputs: command:
    package.overrideAttrs (old: {
      pname = "cvmfs-snapshotter-${name}";
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = command;
      doCheck = false;
      installPhase = "touch $out";
      postInstall = "";
      postFixup = "";
    });

  nixFiles = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.fileFilter (file: file.hasExt "nix") ../.;
  };

  # A system with the module and nothing else said about it.
  system =
    module:
    self.inputs.nixpkgs.lib.nixosSystem {
      modules = [
        self.nixosModules.default
        {
          nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
          system.stateVersion = lib.trivial.release;
          fileSystems."/" = {
            device = "/dev/vda1";
            fsType = "ext4";
          };
          boot.loader.grub.enable = false;
          services.cvmfs-snapshotter.enable = true;
        }
        module
      ];
    };
  inherit ((system { }).config.systemd) units;

  # Mistakes, and what the user has to be told.
  mistakes = import ./mistakes.nix;
  messages =
    module: map (a: a.message) (lib.filter (a: !a.assertion) (system module).config.assertions);
  unexplained = lib.filterAttrs (
    _: mistake: !lib.any (lib.hasInfix mistake.message) (messages mistake.module)
  ) mistakes;
in
{
  inherit package;
  clippy = cargo "clippy" [ pkgs.clippy ] "cargo clippy --offline --workspace --all-targets -- --deny warnings";
  rustfmt = cargo "rustfmt" [ pkgs.rustfmt ] "cargo fmt --check";

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
    if unexplained == { } then
      pkgs.runCommand "module-messages-check" { } "touch $out"
    else
      throw "the module does not explain: ${toString (lib.attrNames unexplained)}";
}
