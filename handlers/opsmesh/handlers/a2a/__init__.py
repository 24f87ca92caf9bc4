"""Agents beyond the mesh, over A2A. Everything here needs the extra `a2a`."""
