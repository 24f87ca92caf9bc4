"""The mesh in containers (deploy/compose.yaml): how its processes begin, whether each is well, and
how it looks from the host. Standard library only.
"""
