# A check by cargo, with the vendored crates of the package, that makes nothing but an empty output.
{
  lib,
  rustPlatform,
  protobuf,
}:
{
  name,
  # What the command needs beside cargo.
  inputs,
  command,
}:
rustPlatform.buildRustPackage {
  pname = "cvmfs-snapshotter-${name}";
  inherit ((lib.importTOML ../Cargo.toml).package) version;
  src = (import ./sources.nix { inherit lib; }).lint;
  cargoLock.lockFile = ../Cargo.lock;
  nativeBuildInputs = [ protobuf ] ++ inputs;
  # It would put a program in cargo's place that knows how to build, and no other command.
  auditable = false;
  buildPhase = command;
  doCheck = false;
  installPhase = "touch $out";
  # There is no program to strip or to look at.
  dontFixup = true;
}
