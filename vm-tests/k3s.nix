{
  nodes.machine =
    { pkgs, ... }:
    {
      virtualisation = {
        memorySize = 2560;
        diskSize = 4096;
        cores = 2;
      };
      services.cvmfs-snapshotter.k3s.enable = true;
      services.k3s = {
        enable = true;
        role = "server";
        extraFlags = [
          "--disable=coredns"
          "--disable=local-storage"
          "--disable=metrics-server"
          "--disable=servicelb"
          "--disable=traefik"
          "--pause-image=127.0.0.1:5000/pause:1"
        ];
      };
      # The registry speaks plain HTTP.
      environment.etc."rancher/k3s/registries.yaml".text = ''
        mirrors:
          "127.0.0.1:5000":
            endpoint:
              - "http://127.0.0.1:5000"
      '';
      environment.etc."testbed/pod.yaml".source = ./lib/pod.yaml;
      environment.systemPackages = [ pkgs.k3s ];
    };
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./k3s.py;
}
