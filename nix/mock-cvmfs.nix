# The program `mock-cvmfs` of the package `testkit`: its dependencies are those of the tests.
{ cvmfs-snapshotter }:
cvmfs-snapshotter.overrideAttrs (old: {
  pname = "mock-cvmfs";
  cargoBuildFlags = [
    "--package"
    "testkit"
    "--bin"
    "mock-cvmfs"
  ];
  doCheck = false;
  installPhase = ''
    runHook preInstall
    # The folder is named after the target platform.
    program=$(find target -path '*/release/mock-cvmfs' -type f)
    install -D -m755 "$program" $out/bin/mock-cvmfs
    runHook postInstall
  '';
  postInstall = "";
  meta = old.meta // {
    description = "A stand-in for a CernVM-FS client, for the tests of cvmfs-snapshotter";
    mainProgram = "mock-cvmfs";
  };
})
