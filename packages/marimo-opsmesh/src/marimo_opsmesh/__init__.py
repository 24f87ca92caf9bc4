"""Tells a mesh of opsmesh what happens in marimo's notebooks; on the standard library alone.

kernel       where marimo's kernel lets us in: hooks around runs of cells
observer     a run of cells, from its start to its events
failures     what a cell raised
notebook     a cell's name and place in the notebook's file
cells        hashes of cells, and the seeds that they set
environment  Python and the packages that a run depended on
server       where marimo's server lets us in: kernels that are restarted, or die
sender       the thread that events leave by
health       whether the hooks are in, for `opsmesh doctor`
guard        nothing of ours reaches the notebook
mesh         the way to the mesh: the same bytes as in pytest-opsmesh

The one rule: marimo and the notebook never feel it. `OPSMESH_MARIMO=0` turns it off.
"""
