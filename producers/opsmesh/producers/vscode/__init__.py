"""VS Code: the extension, how it is packed, and a producer that sees extension hosts die."""
