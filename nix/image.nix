# The snapshotter as an OCI archive, for nodes that run it as a container. It mounts nothing, so it needs no privileged
# container: only its state directory, the directory of its socket and the repositories, under their own paths.
{
  lib,
  dockerTools,
  runCommand,
  skopeo,
  cvmfs-snapshotter,
}:
let
  archive = dockerTools.buildLayeredImage {
    name = "cvmfs-snapshotter";
    tag = cvmfs-snapshotter.version;
    contents = [ cvmfs-snapshotter ];
    config = {
      Entrypoint = [ (lib.getExe cvmfs-snapshotter) ];
      Labels."org.opencontainers.image.licenses" = "Apache-2.0";
    };
  };
in
runCommand "cvmfs-snapshotter-${cvmfs-snapshotter.version}.oci.tar"
  {
    nativeBuildInputs = [ skopeo ];
    meta = {
      inherit (cvmfs-snapshotter.meta) license platforms;
      description = "cvmfs-snapshotter as an OCI archive";
    };
  }
  ''
    skopeo --insecure-policy --tmpdir "$TMPDIR" copy \
      docker-archive:${archive} oci-archive:$out:cvmfs-snapshotter:${cvmfs-snapshotter.version}
  ''
