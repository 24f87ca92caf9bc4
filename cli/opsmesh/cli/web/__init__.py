"""`opsmesh web`: the mesh as a page in a browser of this machine."""
