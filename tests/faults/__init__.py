"""Faults made on purpose, under load, and one checker of what must hold afterwards."""
