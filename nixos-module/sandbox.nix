# The sandbox of the service, each directive measured with everything that the daemon does. dist/systemd has the same.
#
# Left out, because with them the daemon does not work:
#   PrivateUsers         chown fails with EINVAL, and trees of other users cannot be read
#   RestrictSUIDSGID     layers have set-gid directories
#   User, Group          owners, whiteouts and foreign trees need root's user id; FUSE without allow_other its group id
#   MountFlags=private   an automount ends in ELOOP, and what is mounted later looks empty
#   TemporaryFileSystem, InaccessiblePaths at /cvmfs: the repository would be gone, or look empty
{
  # CHOWN: owners. DAC_OVERRIDE: whiteouts and attributes in foreign directories, and removing a tree of mode 0500, for
  # which DAC_READ_SEARCH does not do. FOWNER: modes and times of foreign inodes. FSETID: without it the set-gid bit of a
  # foreign group's directory is lost without an error. Whiteout nodes need no MKNOD.
  CapabilityBoundingSet = [
    "CAP_CHOWN"
    "CAP_DAC_OVERRIDE"
    "CAP_FOWNER"
    "CAP_FSETID"
  ];
  AmbientCapabilities = "";
  NoNewPrivileges = true;

  # Containerd's socket is a unix socket, and it is inherited. A listener for metrics would come from a socket unit too.
  PrivateNetwork = true;
  IPAddressDeny = "any";
  RestrictAddressFamilies = [ "AF_UNIX" ];

  # The mount namespace is a slave of the host's, so that what the host mounts later is seen, automounts included.
  PrivateMounts = true;
  PrivateTmp = true;
  PrivateDevices = true;
  DevicePolicy = "closed";
  ProtectSystem = "strict";
  # /run: systemd 252 leaves it writable where ProtectSystem=strict meets the directives about /proc below.
  # /cvmfs itself, not the repositories: naming one would mount it when the service starts.
  ReadOnlyPaths = [
    "/run"
    "-/cvmfs"
  ];
  ProtectHome = true;
  ProtectProc = "invisible";
  ProcSubset = "pid";
  ProtectClock = true;
  ProtectHostname = true;
  ProtectControlGroups = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;

  RestrictNamespaces = true;
  RestrictRealtime = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  KeyringMode = "private";
  RemoveIPC = true;
  UMask = "0077";

  SystemCallArchitectures = "native";
  # The order counts: @privileged contains @chown, which layers need.
  SystemCallFilter = [
    "@system-service"
    "~@privileged @resources"
    "@chown"
  ];
  SystemCallErrorNumber = "EPERM";
}
