"""marimo, the notebook: what brings its plug-in into reach, and who watches where it is not.

The plug-in itself is a distribution of its own, `packages/marimo-opsmesh`.

producer   the observer from outside: watches notebooks whose marimo has no plug-in
observed   what a notebook's messages say, as a pure function
servers    marimo's servers here, and what each has open
health     what the plug-in says of itself in the kernels and servers that have it
wiring     `opsmesh install marimo`: the plug-in in environments that have marimo
"""

from opsmesh.producers.marimo.producer import Marimo as Marimo
