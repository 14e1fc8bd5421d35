# All that `make test` calls.
{ pkgs }:
pkgs.mkShell {
  inputsFrom = [ pkgs.cvmfs-snapshotter ];
  packages =
    with pkgs;
    [
      cargo
      clippy
      cni-plugins
      containerd
      cri-tools
      deadnix
      fuse3
      gnumake
      go
      jq
      nerdctl
      nginx
      nixfmt
      protobuf
      python3
      qemu
      runc
      rust-analyzer
      rustc
      rustfmt
      skopeo
      socat
      statix
      umoci
      util-linux
    ]
    # `make lint`, and the test that makes a Debian image; where this nixpkgs has them.
    ++ lib.attrValues (
      builtins.intersectAttrs {
        cargo-deny = null;
        mmdebstrap = null;
      } pkgs
    );
}
