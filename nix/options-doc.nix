# The documentation of the module's options: as nixpkgs makes it, where a missing description is an error, and as the
# table in docs/nixos-options.md, which is computed by evaluation alone.
{ pkgs }:
let
  inherit (pkgs) lib;
  evaluated = lib.evalModules {
    modules = [
      ../nixos-module
      {
        _module.args = { inherit pkgs; };
        # Only the options are looked at; those of NixOS, which the module sets, are not there.
        _module.check = false;
      }
    ];
  };
  options = { inherit (evaluated.options) services; };

  shown = lib.filter (o: o.visible && !o.internal) (lib.optionAttrSetToDocList options);
  # In one line, without what would end a cell, and without the roles of nixpkgs' Markdown.
  cell =
    text:
    lib.replaceStrings [ "|" "\n" "{command}" "{file}" "{option}" ] [ "\\|" " " "" "" "" ] (
      lib.concatStringsSep "\n" (lib.filter (l: l != "") (map lib.trim (lib.splitString "\n" text)))
    );
  code = value: "`${cell (value.text or (lib.generators.toPretty { multiline = false; } value))}`";
  row =
    o:
    "| `${lib.removePrefix "services.cvmfs-snapshotter." o.name}` | ${cell o.type} | ${
      if o ? default then code o.default else ""
    } | ${cell (o.description.text or o.description)}${
      lib.optionalString (o ? example && o.type != "boolean") " Example: ${code o.example}."
    } |";
  table = ''
    # Options of the NixOS module

    All of them are below `services.cvmfs-snapshotter`. Generated from `nixos-module/` by `nix build .#options-table`; a
    check compares it.

    | option | type | default | meaning |
    |---|---|---|---|
    ${lib.concatMapStringsSep "\n" row shown}
  '';
in
{
  inherit table;
  options-table = pkgs.writeText "nixos-options.md" table;
  options-doc =
    (pkgs.nixosOptionsDoc {
      inherit options;
      warningsAreErrors = true;
      # Store paths would change with every commit.
      transformOptions = o: o // { declarations = [ ]; };
    }).optionsCommonMark;
}
