"""Language servers behind a proxy: `opsmesh lsp -- SERVER ARGS…`.

The process that the editor starts becomes the server itself; a `relay` beside it hands every byte
on, and an `observer` that the relay feeds tells what it saw. Nothing waits for the observer.
"""
