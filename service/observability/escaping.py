"""Escapes text for the log, so that it cannot begin another line or change a terminal."""


def escaped(text: str) -> str:
    """Return the text with all that is not printable escaped as in Python: newlines, controls, surrogates."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
