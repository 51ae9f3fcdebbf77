"""Graphs of the contract made of a foreign graph, one module a way."""
