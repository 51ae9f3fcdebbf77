"""Choice of the interface by a version's task, and its properties for the metadata."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from service.api.open_inference.interfaces.classification import ClassificationInterface
from service.api.open_inference.interfaces.forecasting import ForecastingInterface
from service.api.open_inference.interfaces.generation import GenerationInterface
from service.api.open_inference.interfaces.interface import Interface
from service.api.open_inference.interfaces.sequences import interface_for_sequences
from service.contract import spec
from service.models.loading import Served

_INTERFACES: Final[Mapping[spec.Task, Callable[[Served], Interface]]] = {
    "text-generation": GenerationInterface,
    "text-classification": ClassificationInterface,
    "forecasting": ForecastingInterface,
    "sequences": interface_for_sequences,
}


def interface_of(served: Served) -> Interface:
    """Return the interface of a version's task."""
    return _INTERFACES[served.spec.task](served)


def properties_of(interface: Interface, task: str) -> dict[str, str]:
    """Return the properties for the metadata: text as it is, other values as JSON."""
    properties: dict[str, object] = {"task": task, **interface.properties}
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()
    }
