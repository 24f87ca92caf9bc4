"""The way from a foreign process to the mesh, on the standard library alone (Python 3.9).

A plug-in of ours that lives in other people's environments ships this folder as it is: it imports
nothing but itself, relatively, so that it works under any package's name (ADR 0035).

outbox   events on their way: to the agent without waiting, and to the spool where that fails
spool    writes the spool's files
events   makes events, with what those of one run have in common
clock    the time, also where a test has stopped it
session  the session and the workspace: the same bytes as opsmesh.router.session

The wire and the spool are described in docs/architecture.md of opsmesh.
"""
