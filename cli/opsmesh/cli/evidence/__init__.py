"""`opsmesh evidence`: the archive, its proofs and its bundles."""
