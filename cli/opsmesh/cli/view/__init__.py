"""What every view shows: one model of the mesh as it is now, and what keeps it so."""
