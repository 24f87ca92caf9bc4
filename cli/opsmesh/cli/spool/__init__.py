"""`opsmesh spool`: what waits on disk for the broker."""
