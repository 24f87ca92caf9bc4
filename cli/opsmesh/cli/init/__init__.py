"""`opsmesh init`: the first run, and any later one."""
