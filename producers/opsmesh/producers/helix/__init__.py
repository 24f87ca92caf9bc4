"""Helix has no plug-ins: its language servers tell, each behind `opsmesh lsp`, which
`opsmesh install helix` writes into its languages.toml."""
