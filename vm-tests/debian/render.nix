# What the machines of the VM tests have beyond a plain machine of the test framework. ./render makes a tree of files of
# it, to be laid over a Debian.
{ flake }:
let
  pkgs = flake.inputs.nixpkgs.legacyPackages.x86_64-linux;
  inherit (pkgs) lib;
  plain =
    (pkgs.testers.runNixOSTest {
      name = "plain";
      nodes.machine = { };
      testScript = "";
    }).config.nodes.machine;

  # What `config` has in addition, but for what is about NixOS, or what Debian's packages bring along.
  additional =
    pattern: get: config:
    lib.filterAttrs (name: _: builtins.match pattern name == null) (
      removeAttrs (get config) (lib.attrNames (get plain))
    );
  units = additional "(auth-rpcgss-|nfs-[^s]|rpc|network-addresses-).*" (
    config:
    lib.mapAttrs (_: unit: { inherit (unit) text wantedBy requiredBy; }) (
      lib.filterAttrs (_: unit: unit.enable) config.systemd.units
    )
  );
  etc = additional "(idmapd|nfs|request-key)\\.conf" (
    config:
    lib.mapAttrs (
      _: file: if file.text != null then { inherit (file) text; } else { source = toString file.source; }
    ) (lib.filterAttrs (_: file: file.enable) config.environment.etc)
  );
  tmpfiles = additional "" (
    config:
    lib.listToAttrs (
      map (package: lib.nameValuePair package.name package.text) (
        lib.filter (package: package ? text) config.systemd.tmpfiles.packages
      )
    )
  );
  users = additional "rpc" (config: lib.mapAttrs (_: user: user.description) config.users.users);
  mounts =
    let
      lines = config: lib.splitString "\n" config.environment.etc.fstab.text;
    in
    config: lib.subtractLists (lines plain) (lines config);

  node = config: {
    inherit (config.virtualisation) memorySize;
    hostName = config.networking.hostName;
    # The others of its network.
    hosts = config.networking.extraHosts;
    address = config.networking.primaryIPAddress;
    units = units config;
    etc = etc config;
    tmpfiles = tmpfiles config;
    users = users config;
    mounts = mounts config;
  };
  test = check: {
    timeout = check.config.globalTimeout;
    nodes = lib.mapAttrs (_: node) check.config.nodes;
  };
  all = lib.mapAttrs' (name: lib.nameValuePair (lib.removePrefix "vm-" name)) (
    lib.filterAttrs (name: _: lib.hasPrefix "vm-" name) flake.checks.x86_64-linux
  );

  # There is no k3s to run.
  tests = lib.mapAttrs (_: test) (removeAttrs all [ "k3s" ]);
in
{
  inherit tests;
  # What makes the files of the store that are named there.
  derivations = lib.filter (lib.hasSuffix ".drv") (
    lib.attrNames (builtins.getContext (builtins.toJSON tests))
  );
}
