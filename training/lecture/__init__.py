"""The lecture that the project grew from, in six lessons that take seconds each.

`python -m training lecture [NAME]` teaches them, and docs/lecture.md is the page beside it. A lesson is a
module with `teach`, which trains and measures, and a class of its result, which has lines to show and a
package to serve.
"""
