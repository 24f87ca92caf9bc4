"""Runs: the ledger, their steps, and how they stand beside each other."""
