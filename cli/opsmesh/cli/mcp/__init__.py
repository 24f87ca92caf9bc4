"""`opsmesh mcp` and `checks`: MCP servers, ours and others'."""
