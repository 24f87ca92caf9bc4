"""Service-level objectives: how profiles stand, from recorded events, and what a miss does."""
