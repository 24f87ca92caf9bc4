"""MCP servers as tools for actions: their processes, sessions, and what they may not do to us."""
