"""Bearer tokens, TLS, sealed state tokens, and secret files that reload when they change."""
