"""`opsmesh exec`: a command run as if by itself, whose failure becomes an event.

child          starts it, passes its output through, keeps the end of it, keeps to a time limit
terminal       the pseudo terminal that an interactive command gets
pytest_bridge  makes pytest runs below the command visible to the mesh
report         what is told of an outcome
run            the three together, and the exit code
"""
