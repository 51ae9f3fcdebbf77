"""Foreign graphs: read, repaired, with the roles of their inputs and outputs, and run as their originals."""
