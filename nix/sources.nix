# What goes into the derivations that call cargo.
{ lib }:
let
  inherit (lib.fileset) maybeMissing toSource unions;

  # All that cargo reads to build the package and to run its unit tests: a change of documents, units or Nix files
  # rebuilds nothing.
  package = unions [
    ../Cargo.toml
    ../Cargo.lock
    ../src
    ../tests
    (maybeMissing ../build.rs)
    (maybeMissing ../benches)
    (maybeMissing ../crates)
    (maybeMissing ../examples)
  ];
  source =
    fileset:
    toSource {
      root = ../.;
      inherit fileset;
    };
in
{
  package = source package;
  # The linters compile the integration tests too, and some of these take in files of other folders.
  lint = source (unions [
    package
    ../dist/systemd
    (maybeMissing ../clippy.toml)
    (maybeMissing ../.clippy.toml)
    (maybeMissing ../rustfmt.toml)
    (maybeMissing ../.rustfmt.toml)
  ]);
}
