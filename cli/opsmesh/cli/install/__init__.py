"""`opsmesh install` and `uninstall`: wiring tools."""
