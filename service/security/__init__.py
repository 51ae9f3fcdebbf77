"""Access tokens, TLS, sealed states, and files of secrets that are read again when they change."""
