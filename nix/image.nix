# The snapshotter as an OCI archive, for nodes that run it as a container. It mounts nothing, so it needs no privileged
# container: only its state directory, the directory of its socket and the repositories, under their own paths.
#
# The same bytes each time: layers and configuration are of 1970, and so are the files of the archive, in fixed order.
{
  lib,
  dockerTools,
  runCommand,
  skopeo,
  cvmfs-snapshotter,
}:
let
  # A script that writes an archive for Docker, so that the layers are not stored on their way.
  stream = dockerTools.streamLayeredImage {
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
    set -o pipefail
    ${stream} | skopeo --insecure-policy --tmpdir "$TMPDIR" copy \
      docker-archive:/dev/stdin oci:image:cvmfs-snapshotter:${cvmfs-snapshotter.version}
    tar --create --file=$out --directory=image --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner \
      --mode=u=rwX,go=rX --format=gnu blobs index.json oci-layout
  ''
