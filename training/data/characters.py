"""Finds the characters of a language model, for programs that need a model whose tokens are characters."""

from service.contract.spec import Characters, Generation
from training.errors import TrainingError


def characters_of(section: Generation) -> str:
    """Return the characters in the order of their ids.

    Raises:
        TrainingError: the tokens are those of a tokenizer.
    """
    if not isinstance(section.text, Characters):
        raise TrainingError(
            f"expected a model whose tokens are characters, found those of {section.text.file}"
        )
    return section.text.vocabulary
