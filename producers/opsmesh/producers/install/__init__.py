"""Writing a tool's own half, and undoing exactly that."""
