"""Scores, compares and promotes version folders on the data that their training never saw."""
