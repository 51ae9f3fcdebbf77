"""protos/ against the last release and its own rules, where buf is not installed: what clients of the release
send and read is there under the same numbers, and everything has a comment.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorSet

from tests.integration.process import ROOT

PROTOS: Final = ROOT / "protos"
RELEASED: Final = PROTOS / "released/0.1.binpb"
OWN: Final = sorted(path for path in PROTOS.rglob("*.proto") if "google" not in path.parts)
_DECLARED: Final = re.compile(r"(message|enum|service|rpc|oneof) \w|[\w.<>, ]+ \w+ = \d+.*;$")


def facts(path: Path) -> set[tuple[object, ...]]:
    """Return what a client relies on, of each field, enum value and rpc of a descriptor set."""
    found: set[tuple[object, ...]] = set()
    for file in FileDescriptorSet.FromString(path.read_bytes()).file:
        prefix = f".{file.package}"
        for enum in file.enum_type:
            found.update(_of_enum(prefix, enum))
        for message in file.message_type:
            found.update(_of_message(prefix, message))
        for service in file.service:
            for one in service.method:
                streams = (one.client_streaming, one.server_streaming)
                found.add((f"{prefix}.{service.name}/{one.name}", one.input_type, one.output_type, streams))
    return found


def _of_enum(prefix: str, enum: EnumDescriptorProto) -> Iterator[tuple[object, ...]]:
    for value in enum.value:
        yield (f"{prefix}.{enum.name}", value.name, value.number)


def _of_message(prefix: str, message: DescriptorProto) -> Iterator[tuple[object, ...]]:
    name = f"{prefix}.{message.name}"
    for field in message.field:
        kind = (field.type, field.type_name, field.label, field.proto3_optional)
        yield (name, field.name, field.number, field.json_name, kind)
    for enum in message.enum_type:
        yield from _of_enum(name, enum)
    for nested in message.nested_type:
        yield from _of_message(name, nested)


def uncommented(text: str) -> list[str]:
    """Return the declarations that have no comment right before them."""
    lines = [line.strip() for line in text.splitlines()]
    return [
        line
        for before, line in itertools.pairwise(lines)
        if _DECLARED.match(line) and not line.startswith("option ") and not before.startswith("//")
    ]


def test_nothing_of_the_last_release_is_gone() -> None:
    released = facts(RELEASED)
    assert len(released) > 100
    assert sorted(released - facts(ROOT / "deploy/envoy/seqserve.binpb"), key=str) == []


@pytest.mark.parametrize("path", OWN, ids=[path.stem for path in OWN])
def test_everything_that_is_declared_has_a_comment(path: Path) -> None:
    assert uncommented(path.read_text()) == []


def test_declarations_without_a_comment_are_found() -> None:
    text = "// A.\nmessage A {\n  // B.\n  string b = 1;\n  map<string, A> c = 2;\n  oneof d {\n  }\n}"
    assert uncommented(text) == ["map<string, A> c = 2;", "oneof d {"]
