"""What ruff finds in Python projects, told when it is new.

program   asks it; findings  what it answered, and what is told of it
watching  the loop; tree     what of a project is watched
producer  the projects of the configuration
"""

from opsmesh.producers.ruff.producer import Ruff

__all__ = ["Ruff"]
