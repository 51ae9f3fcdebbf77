"""Networks that others trained, as versions of contract 2 that are proven against their originals."""
