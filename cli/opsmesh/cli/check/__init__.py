"""`opsmesh check`: checks of Python projects whose findings are events."""
