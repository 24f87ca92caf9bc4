"""The views of `top`, one a module."""
