"""Damaged and hostile `.keras` files are refused with a sentence, in bounded time, and run no code."""

import copy
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.convert.foreign import Refused
from training.convert.keras import read_keras
from training.convert.keras.archive import CONFIG, METADATA, WEIGHTS

SAMPLES = Path(__file__).parents[1] / "samples"
SAMPLE = SAMPLES / "k_lstm_stack.keras"
MASKED = SAMPLES / "k_emb_mask_lstm.keras"
KERNEL = "layers/lstm/cell/vars/0"

Edit = Callable[[Any], None]


def parts_of(sample: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(sample) as archive:
        return {name: archive.read(name) for name in (METADATA, CONFIG, WEIGHTS)}


def zipped(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def with_config(folder: Path, edit: Edit, sample: Path = SAMPLE) -> Path:
    """A sample whose config.json was edited."""
    parts = parts_of(sample)
    document = json.loads(parts[CONFIG])
    edit(document)
    return zipped(folder / "edited.keras", parts | {CONFIG: json.dumps(document).encode()})


def with_weights(folder: Path, edit: Edit) -> Path:
    """A sample whose file of weights was edited."""
    parts = parts_of(SAMPLE)
    data = io.BytesIO(parts[WEIGHTS])
    with h5py.File(data, "r+") as root:
        edit(root)
    return zipped(folder / "edited.keras", parts | {WEIGHTS: data.getvalue()})


def layers_of(document: Any) -> list[Any]:
    found: list[Any] = document["config"]["layers"]
    return found


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        read_keras(path)
    assert len(str(caught.value)) < 800
    return str(caught.value)


def refusal_if_any(path: Path) -> str:
    """The sentence of a refusal, or nothing where the file is read; any other exception fails the test."""
    try:
        read_keras(path)
    except Refused as error:
        return str(error)
    return ""


@pytest.mark.parametrize("keep", [0, 1, 3, 40, 5000, -1, -200], ids=str)
def test_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.keras"
    path.write_bytes(SAMPLE.read_bytes()[:keep])
    assert "expected" in refusal(path)


@pytest.mark.parametrize("keep", [0, 8, 100, 20000], ids=str)
def test_truncated_weights_are_refused(keep: int, tmp_path: Path) -> None:
    parts = parts_of(SAMPLE)
    path = zipped(tmp_path / "cut.keras", parts | {WEIGHTS: parts[WEIGHTS][:keep]})
    assert "expected" in refusal(path)


def test_whole_model_in_hdf5_is_told_how_to_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    path.write_bytes(parts_of(SAMPLE)[WEIGHTS])
    assert "save it again with model.save('model.keras')" in refusal(path)


@pytest.mark.parametrize("version", ["2.15.0", "", None, 3], ids=str)
def test_other_version_of_keras_is_refused(version: object, tmp_path: Path) -> None:
    metadata = json.dumps({"keras_version": version}).encode()
    path = zipped(tmp_path / "other.keras", parts_of(SAMPLE) | {METADATA: metadata})
    assert "keras_version: expected 3" in refusal(path)


@pytest.mark.parametrize("name", [METADATA, CONFIG, WEIGHTS])
def test_missing_member_is_refused(name: str, tmp_path: Path) -> None:
    parts = {known: data for known, data in parts_of(SAMPLE).items() if known != name}
    assert f"expected {name} once" in refusal(zipped(tmp_path / "part.keras", parts))


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = parts_of(SAMPLE) | {WEIGHTS: bytes(50 << 20)}
    path = zipped(tmp_path / "bomb.keras", bomb, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        assert "compressed bytes" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_large_configuration_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "large.keras", parts_of(SAMPLE) | {CONFIG: b" " * (5 << 20)})
    assert "expected at most 4194304 bytes" in refusal(path)


def test_many_members_are_refused(tmp_path: Path) -> None:
    parts = parts_of(SAMPLE) | {f"assets/{index}": b"" for index in range(100)}
    assert "expected at most 64 members" in refusal(zipped(tmp_path / "many.keras", parts))


@pytest.mark.parametrize("text", [b"", b"nothing", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b"\xff"])
def test_configuration_that_is_no_json_object_is_refused(text: bytes, tmp_path: Path) -> None:
    path = zipped(tmp_path / "json.keras", parts_of(SAMPLE) | {CONFIG: text})
    assert "config.json: expected a JSON object" in refusal(path)


def _replaced(class_name: str, **config: object) -> Edit:
    def edit(document: Any) -> None:
        layer = layers_of(document)[2]
        layer["class_name"] = class_name
        layer["config"] |= config

    return edit


def _custom(document: Any) -> None:
    layers_of(document)[1] |= {"module": "evil.layers", "class_name": "LSTM"}


def _registered(document: Any) -> None:
    layers_of(document)[1]["registered_name"] = "evil>LSTM"


def _own_model(document: Any) -> None:
    document |= {"module": "evil", "class_name": "MyModel", "registered_name": "evil>MyModel"}


def _own_activation(document: Any) -> None:
    function = {
        "module": "builtins",
        "class_name": "function",
        "config": "evil",
        "registered_name": "function",
    }
    layers_of(document)[1]["config"]["activation"] = function


def _quantized(document: Any) -> None:
    layers_of(document)[4]["config"]["dtype"] = {
        "class_name": "QuantizedDTypePolicy",
        "config": {"name": "int8"},
    }


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (_replaced("Lambda", function={"class_name": "__lambda__"}), "'dropout' (Lambda): holds Python code"),
        (_replaced("Masking"), "'dropout' (Masking): expected it behind an input"),
        (_replaced("Flatten"), "'dropout' (Flatten): makes the network depend on one number of steps"),
        (_replaced("Reshape"), "(Reshape): makes the network depend"),
        (_replaced("MaxPooling1D"), "(MaxPooling1D): changes the number of steps"),
        (_replaced("MultiHeadAttention"), "(MultiHeadAttention): looks at a second sequence"),
        (_replaced("ConvLSTM1D"), "(ConvLSTM1D): expected a layer that can be read"),
        (_custom, "'lstm' (LSTM): expected a layer of Keras, found a class of evil.layers"),
        (_registered, "'lstm' (LSTM): expected a layer of Keras"),
        (_own_model, "expected a Sequential or Functional model, found MyModel"),
        (_own_activation, "expected the name of an activation, found an object of function"),
        (_quantized, "'dense_1' (Dense): dtype: expected 'float32', 'mixed_float16' or 'mixed_bfloat16'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(edit: Edit, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(with_config(tmp_path, edit))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("units", "many", 'units: expected a whole number, found "many"'),
        ("units", -1, "units: expected at least 1, found -1"),
        ("units", 1 << 40, "units: expected at most 16777216"),
        ("units", True, "units: expected a whole number, found true"),
        ("units", 23, "layers/lstm/cell/vars/0: expected the shape [5, 92], found [5, 96]"),
        ("use_bias", "perhaps", "use_bias: expected true or false"),
        ("activation", "evil", "activation: expected 'linear'"),
        ("name", "other", "expected"),
        ("return_sequences", False, "expected an input of steps, found rows"),
    ],
)
def test_wrong_field_is_refused_by_name(field: str, value: object, expected: str, tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        layers_of(document)[1]["config"][field] = value

    text = refusal(with_config(tmp_path, edit))
    assert expected in text
    assert text.startswith("layer '")


def test_many_layers_are_refused(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        small = {"module": "keras.layers", "class_name": "Dropout", "config": {"name": "d"}}
        document["config"]["layers"] = layers_of(document) + [small] * 10_000

    assert "expected at most 512" in refusal(with_config(tmp_path, edit))


def _nested(depth: int, width: int) -> Edit:
    """A model inside a model inside a model, each used `width` times."""

    def edit(document: Any) -> None:
        one: Any = {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "deep", "layers": [layers_of(document)[2]]},
        }
        for _ in range(depth):
            one = {**one, "config": {"name": "deep", "layers": [copy.copy(one) for _ in range(width)]}}
        one["config"]["layers"].insert(0, layers_of(document)[0])
        document.clear()
        document.update(one)

    return edit


@pytest.mark.parametrize(("depth", "width"), [(40, 1), (7, 3)], ids=["deep", "wide"])
def test_models_inside_models_are_bounded(depth: int, width: int, tmp_path: Path) -> None:
    assert "config.json" in refusal(with_config(tmp_path, _nested(depth, width)))


def test_loop_between_layers_is_refused(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        history = layers_of(document)[1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
        history[0] = "lstm_1"

    assert "'lstm' (LSTM): expected inputs that exist" in refusal(with_config(tmp_path, edit))


def test_operation_on_tensors_is_refused_by_name(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        layers_of(document)[2] |= {"module": "keras.src.ops.numpy", "class_name": "Multiply"}

    assert "(Multiply): expected a layer, found an operation" in refusal(with_config(tmp_path, edit))


def test_mask_of_another_token_is_refused(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        found = next(one for one in layers_of(document) if one["class_name"] == "NotEqual")
        found["inbound_nodes"][0]["args"][1] = 5

    assert "expected the mask of token 0" in refusal(with_config(tmp_path, edit, MASKED))


def _changed(value: Callable[[Any], Any], **options: Any) -> Edit:
    def edit(root: Any) -> None:
        before = root[KERNEL][()]
        del root[KERNEL]
        root.create_dataset(KERNEL, data=value(before), **options)

    return edit


def _link(link: object) -> Edit:
    def edit(root: Any) -> None:
        del root[KERNEL]
        root[KERNEL] = link

    return edit


def _infinite(before: Any) -> Any:
    before[0, 0] = np.inf
    return before


def _virtual(root: Any) -> None:
    del root[KERNEL]
    layout = h5py.VirtualLayout(shape=(5, 96), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(5, 96))
    root.create_virtual_dataset(KERNEL, layout)


def _external(root: Any) -> None:
    del root[KERNEL]
    root.create_dataset(KERNEL, (5, 96), "f4", external=[("/etc/passwd", 0, 5 * 96 * 4)])


def _empty(root: Any) -> None:
    del root[KERNEL]
    root.create_dataset(KERNEL, (5, 96), "f4")  # nothing was written: HDF5 would make up zeros


def _other_layer(root: Any) -> None:
    root["layers/lstm/vars"].attrs["name"] = "lstm_1"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda root: root.__delitem__(KERNEL), "expected weights at"),
        (lambda root: root.__delitem__("layers"), "expected weights at"),
        (_changed(lambda old: old[:, :95]), "expected the shape [5, 96], found [5, 95]"),
        (_changed(lambda old: old * np.nan), "expected finite weights"),
        (_changed(_infinite), "expected finite weights"),
        (_changed(lambda old: old.astype("i4")), "expected floats"),
        (_changed(lambda old: np.full(old.shape, b"\x80\x04.")), "expected floats"),
        (_changed(lambda old: old, compression="gzip"), "found another storage"),
        (_link(h5py.ExternalLink("/etc/passwd", "x")), "found a link to elsewhere"),
        (_link(h5py.SoftLink("/layers/lstm_1/cell/vars/0")), "found a link to elsewhere"),
        (_virtual, "found another storage"),
        (_external, "found another storage"),
        (_empty, "expected floats stored as such"),
        (_other_layer, "expected the weights of lstm, found those of lstm_1"),
    ],
    ids=[
        "missing", "no_layers", "shape", "nan", "infinite", "integers", "bytes", "compressed",
        "external_link", "soft_link", "virtual", "external", "unwritten", "other_layer",
    ],
)  # fmt: skip
def test_wrong_weights_are_refused(edit: Edit, expected: str, tmp_path: Path) -> None:
    text = refusal(with_weights(tmp_path, edit))
    assert text.startswith("layer 'lstm' (LSTM): ")
    assert expected in text


def test_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    path = with_weights(tmp_path, _changed(lambda old: old.astype("f2")))
    assert read_keras(path).graph.graph.node


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 1 << 62), st.floats(), st.text(max_size=5),
    st.just([]), st.just({}), st.just([[]]), st.just({"config": {}}), st.just(["lstm", 0, 0]),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of everything inside a document, without what is known not to be read."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if not str(key).endswith(("_initializer", "build_config")):
            yield (*at, key)
            yield from places(inner, (*at, key))


DOCUMENTS = {path: json.loads(parts_of(path)[CONFIG]) for path in sorted(SAMPLES.glob("k_*.keras"))}
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_any_change_of_the_configuration_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    sample = data.draw(st.sampled_from(sorted(DOCUMENTS)))
    place = data.draw(st.sampled_from(list(places(DOCUMENTS[sample]))))
    junk = data.draw(JUNK)

    def edit(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        document[place[-1]] = junk

    assert len(refusal_if_any(with_config(tmp_path, edit, sample))) < 2000


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_any_damage_of_the_weights_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    parts = parts_of(SAMPLE)
    damaged = bytearray(parts[WEIGHTS])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = zipped(tmp_path / "damaged.keras", parts | {WEIGHTS: bytes(damaged)})
    assert len(refusal_if_any(path)) < 2000
