"""The lecture that the project grew from: six lessons of seconds each, on the network, the export and the
service of everything else.

python -m training lecture [NAME]; docs/lecture.md is the page beside it. A lesson is a module with `teach`,
which trains and measures, and a class of what came out, which says it in lines and hands over what can be
served.
"""
