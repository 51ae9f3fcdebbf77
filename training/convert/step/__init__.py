"""Turns graphs that take one time step a call into chunk cells, which take many."""
