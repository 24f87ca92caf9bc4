"""Checks that MCP clients may have run: `opsmesh checks serve`. `server` needs the extra `mcp`."""
