"""`opsmesh doctor`: the installation and this machine, checked."""
