"""`opsmesh auth`: roles, accounts, credentials and TLS."""
