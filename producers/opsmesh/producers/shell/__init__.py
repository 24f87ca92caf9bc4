"""Commands that fail in an interactive shell: bash, zsh and fish.

opsmesh.bash, opsmesh.zsh, opsmesh.fish
            the hooks: a line of JSON in the inbox for each command that fails, without a fork
line        what such a line says, as a pure function
wanted      which of them are told: the user's filters
inbox       reading the shells' files while they write, and removing what is done with
producer    the loop: wait, read, emit, then remember how far
wiring      where the hooks go, and the line that loads them
"""

from opsmesh.producers.shell.producer import Shell as Shell
