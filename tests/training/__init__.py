"""The room training/: what it promises, on tiny data and tiny networks."""
