{
  nodes.machine = {
    services.cvmfs-snapshotter.containerd.defaultForCri = true;
    virtualisation.containerd.settings.plugins."io.containerd.cri.v1.images" = {
      pinned_images.sandbox = "127.0.0.1:5000/pause:1";
      registry.config_path = "/etc/containerd/certs.d";
    };
    environment.etc = {
      # A pod takes longer than crictl's two seconds on a slow machine.
      "crictl.yaml".text = ''
        runtime-endpoint: unix:///run/containerd/containerd.sock
        timeout: 120
      '';
      "testbed/pod.json".source = ./lib/pod.json;
      "testbed/container.json".source = ./lib/container.json;
    };
  };
  testScript = builtins.readFile ./lib/prelude.py + builtins.readFile ./cri.py;
}
