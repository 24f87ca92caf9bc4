"""The mesh as an agent: `opsmesh a2a serve`. Everything here needs the extra `a2a`."""
