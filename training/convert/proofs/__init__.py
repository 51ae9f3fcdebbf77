"""Comparisons of candidates with their originals."""
