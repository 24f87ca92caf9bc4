"""Who may do what at the broker: keys, tokens, permissions, the manifest, and the CA of TLS."""
