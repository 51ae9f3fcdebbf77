"""The .proto files stand alone, and their answers suit languages whose numbers are narrower than Python's."""

import asyncio
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from seqserve.inference import grpc_service_pb2
from seqserve.v1 import forecasting_pb2, models_pb2, text_classification_pb2, text_generation_pb2
from tests.docs.shell import is_installed, search_path
from tests.integration.process import ROOT

PROTOS: Final = ROOT / "protos"
OWN: Final = {
    "forecasting": forecasting_pb2.DESCRIPTOR,
    "models": models_pb2.DESCRIPTOR,
    "text_classification": text_classification_pb2.DESCRIPTOR,
    "text_generation": text_generation_pb2.DESCRIPTOR,
}
FILES: Final = tuple(sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")))
VENDORED: Final = ("google/rpc/error_details.proto", "google/rpc/status.proto")
WIDE: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)


def messages_of(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """Yield a message and those inside of it, each once."""
    if message.full_name not in seen:
        seen.add(message.full_name)
        yield message
        for field in message.fields:
            if field.message_type is not None:
                yield from messages_of(field.message_type, seen)


def wide_numbers(file: FileDescriptor) -> set[str]:
    """Return the integer fields of 64 bits in the answers of a file's services."""
    seen: set[str] = set()
    return {
        field.full_name
        for service in file.services_by_name.values()
        for method in service.methods
        for message in messages_of(method.output_type, seen)
        for field in message.fields
        if field.type in WIDE
    }


def test_answers_have_no_number_of_64_bits_but_the_seed() -> None:
    found = set[str]().union(*map(wide_numbers, OWN.values()))
    assert found == {"seqserve.v1.GenerateResponse.seed"}, (
        "JavaScript rounds numbers above 2**53: send one below, and add its field here"
    )


@pytest.mark.parametrize("file", FILES)
def test_imports_are_files_of_protos_or_come_with_protoc(file: str) -> None:
    imports = re.findall(r'^import (?:public )?"([^"]+)";', (PROTOS / file).read_text(), re.MULTILINE)
    assert [one for one in imports if one not in FILES and not one.startswith("google/protobuf/")] == []


async def test_every_proto_is_compiled_from_protos_alone(tmp_path: Path) -> None:
    if not is_installed("grpcurl"):
        pytest.skip("grpcurl is missing: make .venv-grpcurl/stamp, or put it on PATH")
    for file in FILES:
        process = await asyncio.create_subprocess_exec(
            *("grpcurl", "-import-path", str(PROTOS), "-proto", file, "list"),
            cwd=tmp_path,
            env={"PATH": search_path(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


@pytest.mark.parametrize("file", VENDORED)
def test_vendored_proto_is_that_of_the_pinned_package(file: str) -> None:
    *folder, name = file.split("/")
    packaged = resources.files(".".join(folder)).joinpath(name).read_bytes()
    assert (PROTOS / file).read_bytes() == packaged, f"copy {file} from googleapis-common-protos again"
    assert "Apache License" in (PROTOS / "google/LICENSE").read_text()


@pytest.mark.parametrize(("name", "file"), OWN.items(), ids=OWN)
def test_generators_of_other_languages_have_their_options(name: str, file: FileDescriptor) -> None:
    options = file.GetOptions()
    assert (options.go_package, options.java_package) == ("seqserve/v1;seqservev1", "com.seqserve.v1")
    assert options.java_multiple_files
    assert options.java_outer_classname == f"{name.title().replace('_', '')}Proto"
    assert (options.csharp_namespace, options.objc_class_prefix) == ("Seqserve.V1", "SQS")


def test_protocol_file_has_a_path_for_go_alone() -> None:
    options = grpc_service_pb2.DESCRIPTOR.GetOptions()
    assert [field.name for field, _ in options.ListFields()] == ["go_package"]
