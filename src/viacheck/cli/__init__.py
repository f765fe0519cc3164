"""The `viacheck` command: one parser, one file for each sub-command."""
