# Types that several files need.
{ lib }:
let
  inherit (lib) types;
in
{
  # Paths become part of options of overlayfs, where these characters separate or escape.
  path = types.strMatching "/[^:,\\[:cntrl:]]*" // {
    description = "absolute path without colon, comma and backslash";
  };
  duration = types.strMatching "([0-9]+ *[a-z]+ *)+" // {
    description = "time such as 2s or 500ms";
  };
  # The name of a CernVM-FS repository; it becomes a directory and part of a file name.
  fqrn = types.strMatching "[A-Za-z0-9_-][A-Za-z0-9._-]*" // {
    description = "fully qualified repository name such as unpacked.cern.ch";
  };
}
