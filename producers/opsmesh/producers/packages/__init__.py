"""What the system's package managers did, from their own logs; and what is known to be vulnerable.

`tail` follows a log through its rotations, `pacman` and `apt` read transactions out of it, `audit`
asks the tools that know of vulnerabilities, `producer` is the loop, `wiring` the optional hooks.
"""

from opsmesh.producers.packages.producer import Packages

__all__ = ["Packages"]
