"""Hostile payloads, what they would do, and how each kind of action is shown them."""
