"""The five shapes of sequence tasks, a small model each.

`python -m training shapes [NAME]` trains them, and docs/shapes.md is the page beside it.
"""
