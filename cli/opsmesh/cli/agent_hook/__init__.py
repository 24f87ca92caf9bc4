"""`opsmesh agent-hook`: what a coding agent's hook calls.

Nothing is imported here: it must start fast.
"""
