"""Backtests: what profiles would have decided about stored events."""
