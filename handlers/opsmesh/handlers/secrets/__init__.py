"""Secrets by reference: where they lie, and who may be told."""
