"""Reads what the numbers of a time step are: names, units, and the scaling that training gave them.

Three forms are taken: a list of columns; lists of names, means and scales; and the attributes of a scaler of
scikit-learn, under their own names. All of them become mean and scale: feature = (value - mean) / scale, and
back, value = feature * scale + mean.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service.contract import spec
from service.contract.sentences import sentences
from training.errors import TrainingError

_COLUMNS = TypeAdapter(list[spec.FeatureColumn])
_FORMS = (
    'a list of {"name", "unit", "mean", "scale"}, lists of "names", "means" and "scales", '
    "or the attributes of a scaler of scikit-learn such as mean_ and scale_"
)
# What one of the three forms has, and no other.
_SCALER_KEYS = frozenset(
    {"mean_", "scale_", "var_", "min_", "data_min_", "data_max_", "max_abs_", "center_", "feature_range"}
)
_LISTS = {"names": "names", "units": "units", "mean": "mean", "means": "mean", "scale": "scale"} | {
    "scales": "scale",
    "std": "scale",
}

Numbers = list[float]
# A network takes no more.
_MAX_COLUMNS = 1 << 16


class _Scaling(NamedTuple):
    """Means and scales of the columns, and their names, None where nobody said them."""

    means: Numbers
    scales: Numbers
    names: list[str] | None


def columns_of(described: object, count: int, option: str) -> tuple[spec.FeatureColumn, ...]:
    """Return the columns that a user described.

    Args:
        described: the JSON of a file, a mapping or list of Python, or a scaler of scikit-learn.
        count: number of columns that the network has.
        option: the option that described them, for error texts.

    Raises:
        TrainingError: it has none of the known forms, another number of columns, or a bad value.
    """
    described = _plain(described)
    if isinstance(described, list):
        columns = _from_list(described, option)
    elif isinstance(described, Mapping) and _SCALER_KEYS & described.keys():
        columns = _made(_from_scaler(described, option), (), option)
    elif isinstance(described, Mapping) and described.keys() & _LISTS.keys():
        columns = _from_lists(described, option)
    else:
        raise TrainingError(f"{option}: expected {_FORMS}, found {_shown(described)}")
    if len(columns) != count:
        raise TrainingError(f"{option}: expected {count} columns, as the network has, found {len(columns)}")
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise TrainingError(f"{option}: expected different names, found {_shown(names)}")
    return tuple(columns)


def outputs_of(described: object, count: int, option: str) -> tuple[spec.OutputColumn, ...]:
    """Return the columns of numbers that come out, described as `columns_of` has it.

    Raises:
        TrainingError: as `columns_of`; or a column has a transform, which outputs cannot have.
    """
    found = columns_of(described, count, option)
    for column in found:
        if column.transform != "none":
            raise TrainingError(
                f"{option}: expected no transform of an output, found {column.transform} of {column.name!r}"
            )
    return tuple(
        spec.OutputColumn(name=one.name, unit=one.unit, mean=one.mean, scale=one.scale) for one in found
    )


def _plain(described: object) -> object:
    """Return arrays and scalers as lists and mappings."""
    if isinstance(described, Mapping | list | str | bytes | int | float | bool) or described is None:
        return described
    if isinstance(described, tuple):
        return list(described)
    if isinstance(described, np.ndarray):
        return described.tolist()
    return vars(described) if hasattr(described, "__dict__") else described


def _from_list(described: Sequence[object], option: str) -> list[spec.FeatureColumn]:
    named = [{"name": one} if isinstance(one, str) else one for one in described]
    numbered = [
        {"name": f"x{index}"} | one if isinstance(one, dict) else one for index, one in enumerate(named)
    ]
    return _validated(numbered, option)


def _from_lists(described: Mapping[str, Any], option: str) -> list[spec.FeatureColumn]:
    unknown = sorted(set(described) - _LISTS.keys())
    if unknown:
        raise TrainingError(
            f"{option}: expected the keys names, units, mean and scale, found {_shown(unknown)}"
        )
    lists = {_LISTS[key]: _plain(value) for key, value in described.items()}
    for key, value in lists.items():
        if not isinstance(value, list):
            raise TrainingError(f"{option}: expected a list in {key}, found {_shown(value)}")
    given: dict[str, list[Any]] = {key: list(value) for key, value in lists.items()}  # type: ignore[call-overload]
    count = max(map(len, given.values()))
    for key, values in given.items():
        if len(values) != count:
            raise TrainingError(
                f"{option}: expected lists of one length, found {len(values)} values in {key}"
            )
    means = _numbers(given.get("mean", [0.0] * count), "mean", option)
    scales = _numbers(given.get("scale", [1.0] * count), "scale", option)
    return _made(_Scaling(means, scales, given.get("names")), given.get("units", ()), option)


def _from_scaler(described: Mapping[str, Any], option: str) -> _Scaling:
    """Return the mean and scale that a scaler of scikit-learn stands for, in 64 bits."""
    found = {key: _plain(described[key]) for key in described if described[key] is not None}
    if found.get("clip") is True:
        raise TrainingError(f"{option}: expected a scaler that does not clip, found clip=True")
    names = found.get("feature_names_in_")
    if {"min_", "data_min_"} & found.keys():
        means, scales = _of_min_max(found, option)
    else:
        means, scales = _of_standard(found, option)
    if names is not None and not isinstance(names, list):
        raise TrainingError(f"{option}: expected a list in feature_names_in_, found {_shown(names)}")
    return _Scaling(means, scales, None if names is None else list(map(str, names)))


def _of_min_max(found: Mapping[str, Any], option: str) -> tuple[Numbers, Numbers]:
    """Return mean and scale of MinMaxScaler, whose feature is value * scale_ + min_."""
    if {"min_", "scale_"} <= found.keys():
        factors = _numbers(found["scale_"], "scale_", option)
        offsets = _numbers(found["min_"], "min_", option)
    else:
        low, high = _numbers(found.get("feature_range", [0, 1]), "feature_range", option)[:2]
        least = _numbers(found.get("data_min_"), "data_min_", option)
        most = _numbers(found.get("data_max_"), "data_max_", option)
        # scikit-learn takes the range of a column of one value for 1.
        ranges = [above - below or 1.0 for below, above in zip(least, most, strict=False)]
        factors = [(high - low) / one for one in ranges]
        offsets = [low - one * factor for one, factor in zip(least, factors, strict=False)]
    if len(factors) != len(offsets):
        raise TrainingError(
            f"{option}: expected lists of one length, found {len(factors)} scales and {len(offsets)} minima"
        )
    if not all(factors):
        raise TrainingError(f"{option}: expected scales above 0 in scale_, found 0")
    pairs = zip(offsets, factors, strict=True)
    return [-offset / factor for offset, factor in pairs], [1 / factor for factor in factors]


def _of_standard(found: Mapping[str, Any], option: str) -> tuple[Numbers, Numbers]:
    """Return mean and scale of StandardScaler, MaxAbsScaler or RobustScaler: (value - mean_) / scale_."""
    if "scale_" in found:
        scales = _numbers(found["scale_"], "scale_", option)
    elif "var_" in found and found.get("with_std", True):
        scales = [math.sqrt(one) if one > 0 else 1.0 for one in _numbers(found["var_"], "var_", option)]
    else:
        scales = []
    middle = next((key for key in ("mean_", "center_") if key in found), None)
    means = _numbers(found[middle], middle, option) if middle and found.get("with_mean", True) else []
    if not scales and not means:
        raise TrainingError(f"{option}: expected mean_, scale_ or min_ of a scaler, found none of them")
    means, scales = means or [0.0] * len(scales), scales or [1.0] * len(means)
    if len(means) != len(scales):
        raise TrainingError(
            f"{option}: expected lists of one length, found {len(means)} means and {len(scales)} scales"
        )
    return means, scales


def _numbers(found: object, key: str, option: str) -> Numbers:
    """Return a list of finite numbers."""
    values = _plain(found)
    if isinstance(values, list) and all(isinstance(one, int | float) for one in values):
        numbers = [float(one) for one in values]
        if all(map(math.isfinite, numbers)):
            return numbers
    raise TrainingError(f"{option}: expected a list of finite numbers in {key}, found {_shown(values)}")


def _made(scaling: _Scaling, units: Sequence[Any], option: str) -> list[spec.FeatureColumn]:
    names = scaling.names or [f"x{index}" for index in range(len(scaling.means))]
    if len(names) != len(scaling.means):
        raise TrainingError(
            f"{option}: expected a name for each of {len(scaling.means)} columns, found {len(names)}"
        )
    described = [
        {"name": name, "mean": mean, "scale": scale}
        for name, mean, scale in zip(names, scaling.means, scaling.scales, strict=True)
    ]
    for one, unit in zip(described, units, strict=False):
        one["unit"] = unit
    return _validated(described, option)


def _validated(described: Sequence[object], option: str) -> list[spec.FeatureColumn]:
    if len(described) > _MAX_COLUMNS:
        raise TrainingError(f"{option}: expected at most {_MAX_COLUMNS} columns, found {len(described)}")
    document = json.dumps(described, default=str)
    try:
        return _COLUMNS.validate_json(document)
    except ValidationError as error:
        found = "; ".join(sentences(error, document, list(spec.FeatureColumn.model_fields)))
        raise TrainingError(f"{option}: {found}") from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
