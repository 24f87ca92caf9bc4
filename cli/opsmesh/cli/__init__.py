"""The `opsmesh` command, above every other layer."""
