"""`opsmesh exec`: a command run as if by itself, whose failure becomes an event.

child     starts it, and waits for its end
pump      passes its output through, and keeps the end of it
limit     ends it when its time is over
terminal  the pseudo terminal that an interactive command gets
bridge    makes test runs and notebooks below the command visible to the mesh
report    what is told of an outcome
run       all of it together, and the exit code
"""
