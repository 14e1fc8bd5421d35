# A machine with the snapshotter, containerd, a registry without layers, and repositories that have them.
#
# Images are made when the test is built, repositories when its machine boots for the first time, both by what we ship:
# the store keeps neither owners nor set-id bits nor times, and a build has no root to set them, so that a repository in
# the store would be a wrong one. `unpack` takes a second, and it is what a user would call.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.testbed;
  snapshotter = config.services.cvmfs-snapshotter;
  # Static: it is the only program in the images. NixOS' own tests use this one, so that there is a build of it in its
  # cache, which a package with other options would not have.
  inherit (pkgs.pkgsStatic) busybox;
  architecture = if pkgs.stdenv.hostPlatform.isAarch64 then "arm64" else "amd64";
  images = pkgs.runCommand "testbed-images" { nativeBuildInputs = [ pkgs.python3 ]; } ''
    mkdir $out
    python3 ${./make-images.py} ${lib.getExe' busybox "busybox"} ${architecture} $out
  '';
  unpack = directory: image: ''
    ${lib.getExe snapshotter.package} unpack --quiet --ref ${image} /etc/testbed/oci ${directory}
  '';
in
{
  options.testbed = {
    repositories = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default."/srv/layers" = [
        "app:1"
        "pause:1"
      ];
      description = "Directories, and the images whose layers are unpacked there.";
    };
    registry = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the machine has a registry.";
    };
  };

  config = {
    virtualisation = {
      memorySize = lib.mkDefault 1536;
      diskSize = lib.mkDefault 2048;
    };
    networking.firewall.enable = false;

    services.cvmfs-snapshotter = {
      enable = lib.mkDefault true;
      repositories = lib.mkDefault [
        {
          name = "layers";
          path = "/srv/layers";
          kind = "directory";
        }
      ];
    };

    environment.systemPackages = [
      pkgs.cri-tools
      pkgs.jq
      pkgs.nerdctl
      pkgs.socat
    ];
    environment.etc = {
      "testbed/oci".source = "${images}/oci";
      "testbed/registry".source = "${images}/registry";
      "testbed/digests.json".source = "${images}/digests.json";
      "testbed/sandbox-probe.sh".source = ./sandbox-probe.sh;
      # Plain HTTP, for nerdctl and CRI.
      "containerd/certs.d/127.0.0.1:5000/hosts.toml".source = ./hosts.toml;
    };

    systemd.services.repository = lib.mkIf (cfg.repositories != { }) {
      description = "Layers of the test images";
      wantedBy = [ "multi-user.target" ];
      before = [ "cvmfs-snapshotter.service" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
      script = lib.concatStrings (
        lib.concatLists (
          lib.mapAttrsToList (directory: map (image: unpack directory image)) cfg.repositories
        )
      );
    };

    services.nginx = lib.mkIf cfg.registry {
      enable = true;
      virtualHosts.registry = {
        listen = [
          {
            addr = "127.0.0.1";
            port = 5000;
          }
        ];
        root = "/etc/testbed/registry";
        # Tests read from it which layers were asked for.
        extraConfig = "access_log /var/log/nginx/registry.log;";
        locations."/v2/".extraConfig = "default_type application/octet-stream;";
        locations."~ /manifests/".extraConfig = "default_type application/vnd.oci.image.manifest.v1+json;";
      };
    };
  };
}
