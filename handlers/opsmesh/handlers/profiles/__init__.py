"""Profiles: their text, what is wrong with it, and which of it is in force."""
