"""The evidence archive."""
