{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
  protobuf,
}:
let
  cargo = (lib.importTOML ../Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = cargo.name;
  inherit (cargo) version;

  # Only what cargo reads: a change of documents, units or Nix files rebuilds nothing.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../src
      ../crates
      ../tests
      (lib.fileset.maybeMissing ../build.rs)
      (lib.fileset.maybeMissing ../benches)
      (lib.fileset.maybeMissing ../rustfmt.toml)
      (lib.fileset.maybeMissing ../clippy.toml)
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [
    installShellFiles
    # containerd-snapshots generates its gRPC code with protoc.
    protobuf
  ];

  # The unit tests. The others need root, FUSE or containerd, which a build has not: the VM tests are there for these.
  cargoTestFlags = [
    "--lib"
    "--bins"
  ];

  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/cvmfs-snapshotter man pages
    installManPage pages/*
    installShellCompletion --cmd cvmfs-snapshotter \
      --bash <($out/bin/cvmfs-snapshotter completions bash) \
      --fish <($out/bin/cvmfs-snapshotter completions fish) \
      --zsh <($out/bin/cvmfs-snapshotter completions zsh)
  '';

  meta = {
    inherit (cargo) description;
    longDescription = ''
      containerd asks the snapshotter for the layers of an image. A layer that already lies unpacked on CernVM-FS, NFS
      or in any directory of the host is used in place; one that does not is downloaded as always. The daemon owns no
      mount and keeps its state over restarts, crashes and reboots.
    '';
    license = lib.licenses.asl20;
    sourceProvenance = [ lib.sourceTypes.fromSource ];
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    maintainers = [ ];
    mainProgram = "cvmfs-snapshotter";
  }
  // lib.optionalAttrs (cargo ? repository) {
    homepage = cargo.repository;
    changelog = "${cargo.repository}/releases/tag/v${cargo.version}";
  };
}
