# The example `mock-cvmfs` of the crate: its dependencies are those of the tests.
{ cvmfs-snapshotter }:
cvmfs-snapshotter.overrideAttrs (old: {
  pname = "mock-cvmfs";
  cargoBuildFlags = [
    "--example"
    "mock-cvmfs"
  ];
  doCheck = false;
  installPhase = ''
    runHook preInstall
    # The folder is named after the target platform.
    program=$(find target -path '*/release/examples/mock-cvmfs' -type f)
    install -D -m755 "$program" $out/bin/mock-cvmfs
    runHook postInstall
  '';
  postInstall = "";
  meta = old.meta // {
    description = "A stand-in for a CernVM-FS client, for the tests of cvmfs-snapshotter";
    mainProgram = "mock-cvmfs";
  };
})
