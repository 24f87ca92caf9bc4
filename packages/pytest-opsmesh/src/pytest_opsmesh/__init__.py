"""Each failing test becomes an event of the mesh: in pytest by this plugin, in unittest through
`opsmesh exec`.

It is loaded into any project's tests: on the standard library alone, it never blocks, never fails a
test, and prints nothing unless asked (`--opsmesh-verbose`). `OPSMESH_PYTEST=0` or
`-p no:pytest_opsmesh` turns it off.

hooks      what pytest calls            mark    what a run leaves that vanishes
reporter   pytest's reports as events   facts   what a report says
cases      unittest's results as events notes   where each test passed last
editor     whether an editor runs it    mesh    the way to the mesh, for any plug-in of ours

Whatever Python finds it reads this file, so that nothing here may be new to any.
PYTEST_DONT_REWRITE: below exec unittest may have loaded it before pytest, which would warn of that.
"""

import sys

if sys.version_info >= (3, 9):  # noqa: UP036 (what is older keeps still)
    from .hooks import pytest_addoption as pytest_addoption
    from .hooks import pytest_configure as pytest_configure
    from .hooks import pytest_unconfigure as pytest_unconfigure
