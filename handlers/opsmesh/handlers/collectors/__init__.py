"""What gets the pieces of an evidence bundle: entry points of the group `opsmesh.collectors`."""
