"""Stop strings in a text that comes in pieces: what may be the start of one is held back."""

from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string.

    The first is the one completed first; of those completed by the same character, the longest. What might
    still become a stop string is held back.

    Args:
        stops: non-empty strings; none: everything passes at once.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    @property
    def is_holding(self) -> bool:
        """True if text is held back."""
        return bool(self._held)

    def push(self, text: str) -> tuple[str, int | None]:
        """Take more text.

        Returns:
            The text released by it, and, if a stop string was completed, by how many characters of `text`;
            else None.
        """
        if not self._stops:
            return text, None
        released = []
        for index, character in enumerate(text):
            held = self._held + character
            start = 0
            while not any(stop.startswith(held[start:]) for stop in self._stops):
                start += 1
            released.append(held[:start])
            self._held = held[start:]
            completed = max(
                (stop for stop in self._stops if self._held.endswith(stop)), key=len, default=None
            )
            if completed is not None:
                released.append(self._held[: -len(completed)])
                self._held = ""
                return "".join(released), index + 1
        return "".join(released), None

    def skip(self, text: str) -> int | None:
        """Take text that was released before, in place of the first `push`, which does the same more slowly.

        Returns:
            How many characters at its end are held back all the same, None if there is a stop string in it.
        """
        if any(stop in text for stop in self._stops):
            return None
        longest = max(map(len, self._stops), default=1) - 1
        start = max(0, len(text) - longest)
        while not any(stop.startswith(text[start:]) for stop in self._stops) and start < len(text):
            start += 1
        self._held = text[start:]
        return len(self._held)

    def flush(self) -> str:
        """Return what was held back: the text ends here."""
        held, self._held = self._held, ""
        return held
