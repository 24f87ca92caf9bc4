"""`opsmesh panes`: the mesh on one screen of a terminal multiplexer."""
