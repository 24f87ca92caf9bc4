"""The mesh for MCP clients: `opsmesh mcp serve`. Everything here needs the extra `mcp`."""
