"""`opsmesh lsp`: a language server behind a proxy. Nothing is imported here: it must start fast."""
