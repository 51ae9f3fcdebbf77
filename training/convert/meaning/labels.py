"""Reads the names of classes: from a file, a list with commas, or the mappings that model hubs write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.convert.meaning.jsonfiles import parse_json, read_text
from training.errors import TrainingError


def labels_from(said: str | Path | Sequence[str] | Mapping[object, object], option: str) -> list[str]:
    """Return names of classes in the order of the network's outputs.

    Args:
        said: a file of JSON or of one label a line; labels with commas between them; a list; or a mapping
            between labels and their places, either way round.
        option: the option that gave them, for error texts.

    Raises:
        TrainingError: the file cannot be read, or labels are not different texts.
    """
    found = _read(said, option) if isinstance(said, str | Path) else said
    if isinstance(found, Mapping):
        found = _in_order(found, option)
    if not isinstance(found, list | tuple) or not all(isinstance(one, str | int) for one in found):
        raise TrainingError(f"{option}: expected a list of labels, or an object of labels and their places")
    labels = [str(one) for one in found]
    if len(set(labels)) != len(labels):
        twice = next(one for one in labels if labels.count(one) > 1)
        raise TrainingError(f"{option}: expected different labels, found {twice!r} twice")
    if not labels:
        raise TrainingError(f"{option}: expected labels, found none")
    return labels


def _read(said: str | Path, option: str) -> object:
    path = Path(said)
    if not isinstance(said, Path) and not path.is_file():
        if "," not in said and path.suffix:
            raise TrainingError(
                f"{option}: expected a file, or labels with commas between them, found {said!r}"
            )
        return [one.strip() for one in said.split(",")]
    text = read_text(path, option)
    if path.suffix == ".json" or text.lstrip().startswith(("[", "{")):
        return parse_json(text, option, str(path))
    return [line.strip() for line in text.splitlines() if line.strip()]


def _in_order(places: Mapping[object, object], option: str) -> list[str]:
    """Return the labels of a mapping such as id2label or label2id."""
    pairs = [
        (str(value), key) if str(key).isdecimal() and not isinstance(value, int) else (str(key), value)
        for key, value in places.items()
    ]
    by_place = {int(str(place)): label for label, place in pairs if str(place).isdecimal()}
    if sorted(by_place) != list(range(len(places))):
        raise TrainingError(
            f"{option}: expected places 0 to {len(places) - 1}, one a label, found {sorted(by_place)[:20]}"
        )
    return [by_place[place] for place in range(len(places))]
