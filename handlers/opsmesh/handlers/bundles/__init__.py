"""Evidence bundles: written, packed, shared between hosts, found, shown and removed."""
