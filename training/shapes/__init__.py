"""The five shapes of sequence tasks, a small one each, on the network, the export and the service of
everything else.

python -m training shapes [NAME]; docs/shapes.md is the page beside it.
"""
