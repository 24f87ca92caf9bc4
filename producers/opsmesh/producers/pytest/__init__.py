"""pytest: its plug-in in reach of environments (`wiring`).

The plug-in is a distribution of its own, packages/pytest-opsmesh; `exec` brings it into reach of
one command.
"""
