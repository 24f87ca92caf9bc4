"""What each Python below `opsmesh exec` runs first, as `sitecustomize` on PYTHONPATH: it waits for
unittest, whose runs then tell of their failures (`cases`). Another `sitecustomize` runs as it would
without this one, which then is gone. A process that never imports unittest pays for reading this.

Any Python may find it: nothing here may be new to any.
"""

import sys


class Waiting:
    """Nothing is found here: it is asked for each module, and so learns when unittest comes."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """When unittest's loader is looked for, its suites are there already."""
        if name == "unittest.loader":
            try:
                sys.meta_path.remove(self)
                from pytest_opsmesh import suites

                suites.watch(sys.modules["unittest.suite"])
            except Exception:  # noqa: S110 (their tests run, with or without us)
                pass


def hand_over():  # type: ignore[no-untyped-def]
    """Run the `sitecustomize` that this one hides. ImportError, which `site` expects, for none."""
    here = __file__.rpartition("/")[0]
    at = sys.path.index(here)
    del sys.path[at]
    this = sys.modules.pop("sitecustomize")  # kept: Python 2 empties a module that nobody has
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    finally:
        sys.path.insert(at, here)
        del this


if __name__ == "sitecustomize":
    if sys.version_info >= (3, 9):  # noqa: UP036
        sys.meta_path.insert(0, Waiting())
    hand_over()  # type: ignore[no-untyped-call]
