"""Hosts of different versions: what an earlier release has stored, read by today's code."""
