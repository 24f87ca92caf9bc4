"""Deciding live: one owner a profile, its position, and what it writes."""
