"""Declares the error of this room."""


class TableError(Exception):
    """A file or a table that cannot be used; the text says where, what was expected and what was found."""
