{
  description = "A containerd snapshotter that serves image layers in place from CernVM-FS, NFS or any directory";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # Evaluated once for each system, and used by everything below.
      pkgsOf = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system: nixpkgs.legacyPackages.${system}.extend self.overlays.default
      );
      eachSystem = f: lib.mapAttrs (_: f) pkgsOf;
      demos = eachSystem (
        pkgs:
        lib.nixosSystem {
          modules = [
            self.nixosModules.default
            ./nix/demo.nix
            { nixpkgs = { inherit pkgs; }; }
          ];
        }
      );
      demoOf = pkgs: demos.${pkgs.stdenv.hostPlatform.system}.config.system.build.vm;
    in
    {
      overlays.default = import ./nix/overlay.nix;

      nixosModules.default =
        { lib, pkgs, ... }:
        {
          # With a key the module may be imported by several others.
          key = "cvmfs-snapshotter#nixosModules.default";
          _file = ./flake.nix;
          imports = [ ./nixos-module ];
          # No overlay is needed for it: where nixpkgs.* is read-only, as in VM tests, none can be set.
          services.cvmfs-snapshotter.package =
            lib.mkDefault
              self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };

      nixosConfigurations.demo = demos.x86_64-linux;

      packages = eachSystem (pkgs: {
        default = pkgs.cvmfs-snapshotter;
        inherit (pkgs) cvmfs-snapshotter mock-cvmfs;
        image = pkgs.callPackage ./nix/image.nix { };
        inherit (import ./nix/options-doc.nix { inherit pkgs; }) options-doc options-table;
      });

      apps = eachSystem (pkgs: {
        demo = {
          type = "app";
          program = lib.getExe (demoOf pkgs);
          meta.description = "A virtual machine that pulls and runs an image without downloading a layer";
        };
      });

      devShells = eachSystem (pkgs: {
        default = import ./nix/devshell.nix { inherit pkgs; };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      checks = eachSystem (
        pkgs:
        import ./nix/checks.nix { inherit self pkgs; }
        // import ./nix/vm-tests.nix { inherit self pkgs; }
        // {
          demo = demoOf pkgs;
        }
      );
    };
}
