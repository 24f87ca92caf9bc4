"""`opsmesh top`: the mesh on a terminal, as it changes."""
