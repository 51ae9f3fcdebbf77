"""The reference of the gRPC interface, a page for each proto file, from a descriptor set with its comments.

The set is made by `protoc --include_source_info`: descriptors in generated code have no comments. Each
message, enum and rpc has its full name as anchor, and each type in a table is a link to its anchor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from tools.site.text import cell, paragraphs, table

FOLDER: Final = "reference/protos"

# By path of a declaration in its file (descriptor.proto: SourceCodeInfo.Location), its comment.
Comments = Mapping[tuple[int, ...], str]
# By full name of a message or enum, the file name of its page.
Places = Mapping[str, str]

_MESSAGES, _ENUMS, _SERVICES, _PACKAGE = 4, 5, 6, 2  # field numbers of FileDescriptorProto
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4  # of DescriptorProto
_METHODS = _VALUES = 2  # of ServiceDescriptorProto and of EnumDescriptorProto


@dataclass(frozen=True, slots=True)
class Page:
    """What the functions below need of the page that they write for.

    Attributes:
        package: package of the file.
        comments: comments of the file.
        name: file name of the page.
        places: the pages of all messages and enums.
    """

    package: str
    comments: Comments
    name: str
    places: Places


def pages(files: FileDescriptorSet) -> dict[str, str]:
    """Return the pages by their path in the site: one for each file, and the list of them."""
    places = {name: page_name(file) for file in files.file for name in _types_of(file)}
    made = {f"{FOLDER}/{page_name(file)}": _page(file, places) for file in files.file}
    return {f"{FOLDER}/index.md": _index(files.file)} | made


def page_name(file: FileDescriptorProto) -> str:
    """Return the file name of a proto file's page."""
    return file.name.rpartition("/")[2].removesuffix(".proto") + ".md"


def _types_of(file: FileDescriptorProto) -> Iterator[str]:
    for enum in file.enum_type:
        yield f"{file.package}.{enum.name}"
    for message in file.message_type:
        yield from _types_in(message, f"{file.package}.{message.name}")


def _types_in(message: DescriptorProto, name: str) -> Iterator[str]:
    yield name
    for enum in message.enum_type:
        yield f"{name}.{enum.name}"
    for inner in message.nested_type:
        yield from _types_in(inner, f"{name}.{inner.name}")


def _index(files: Sequence[FileDescriptorProto]) -> str:
    rows = (
        (
            f"[{file.name}]({page_name(file)})",
            ", ".join(f"`{file.package}.{service.name}`" for service in file.service),
            ", ".join(f"`{method.name}`" for service in file.service for method in service.method),
        )
        for file in files
    )
    return (
        "# The gRPC interface\n"
        "Every service, message and field, with unit, default and range, as the proto files document them. "
        "Calls with their answers are in [recipes.md](../../recipes.md); errors in [errors.md](../errors.md)."
        f"\n\n{table(('file', 'services', 'rpcs'), rows)}\n"
    )


def _page(file: FileDescriptorProto, places: Places) -> str:
    page = Page(file.package, _comments_of(file), page_name(file), places)
    head = [f"# {file.name}", *paragraphs(page.comments.get((_PACKAGE,), "")), f"Package `{file.package}`."]
    return "\n\n".join([*head, *_services(file, page), *_messages(file, page), *_enums(file, page)]) + "\n"


def _comments_of(file: FileDescriptorProto) -> Comments:
    """Return the comments above declarations, or those behind them where there are none above."""
    return {
        tuple(place.path): place.leading_comments or place.trailing_comments
        for place in file.source_code_info.location
    }


def _services(file: FileDescriptorProto, page: Page) -> Iterator[str]:
    for number, service in enumerate(file.service):
        path = (_SERVICES, number)
        yield f"## Service {service.name} {{#{page.package}.{service.name}}}"
        yield from paragraphs(page.comments.get(path, ""))
        for place, method in enumerate(service.method):
            yield f"### {method.name} {{#{page.package}.{service.name}.{method.name}}}"
            yield _signature(method, page)
            yield from paragraphs(page.comments.get((*path, _METHODS, place), ""))


def _signature(method: MethodDescriptorProto, page: Page) -> str:
    given = f"{'stream of ' if method.client_streaming else ''}{_link(method.input_type, page)}"
    returned = f"{'stream of ' if method.server_streaming else ''}{_link(method.output_type, page)}"
    return f"{given} → {returned}"


def _messages(file: FileDescriptorProto, page: Page) -> Iterator[str]:
    for number, message in enumerate(file.message_type):
        yield from _message(message, message.name, (_MESSAGES, number), page)


def _message(message: DescriptorProto, name: str, path: tuple[int, ...], page: Page) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield f"## {name} {{#{page.package}.{name}}}"
    yield from paragraphs(page.comments.get(path, ""))
    entries = {
        f".{page.package}.{name}.{one.name}": one for one in message.nested_type if one.options.map_entry
    }
    rows = [
        (
            f"`{field.name}`",
            str(field.number),
            _type(field, entries, page),
            _meaning(message, field, page.comments.get((*path, _FIELDS, number), "")),
        )
        for number, field in enumerate(message.field)
    ]
    if rows:
        yield table(("field", "number", "type", "meaning"), rows)
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.{enum.name}", (*path, _NESTED_ENUMS, number), page)
    for number, inner in enumerate(message.nested_type):
        yield from _message(inner, f"{name}.{inner.name}", (*path, _NESTED, number), page)


def _meaning(message: DescriptorProto, field: FieldDescriptorProto, comment: str) -> str:
    """Return a field's comment, behind the name of the oneof that it is part of."""
    if not field.HasField("oneof_index") or field.proto3_optional:
        return cell(comment)
    return f"One of `{message.oneof_decl[field.oneof_index].name}`. {cell(comment)}"


def _type(field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto], page: Page) -> str:
    if (entry := entries.get(field.type_name)) is not None:
        key, value = entry.field
        return f"map of {_name_of_type(key, page)} to {_name_of_type(value, page)}"
    name = _name_of_type(field, page)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _name_of_type(field: FieldDescriptorProto, page: Page) -> str:
    if field.type_name:
        return _link(field.type_name, page)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str, page: Page) -> str:
    """Return a type's name, without its package where that is the page's, as a link if it has a page."""
    full = type_name.removeprefix(".")
    shown = full.removeprefix(f"{page.package}.")
    if (target := page.places.get(full)) is None:
        return f"`{shown}`"
    return f"[{shown}]({'' if target == page.name else target}#{full})"


def _enums(file: FileDescriptorProto, page: Page) -> Iterator[str]:
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, enum.name, (_ENUMS, number), page)


def _enum(enum: EnumDescriptorProto, name: str, path: tuple[int, ...], page: Page) -> Iterator[str]:
    yield f"## {name} {{#{page.package}.{name}}}"
    yield from paragraphs(page.comments.get(path, ""))
    rows = (
        (f"`{value.name}`", str(value.number), cell(page.comments.get((*path, _VALUES, number), "")))
        for number, value in enumerate(enum.value)
    )
    yield table(("value", "number", "meaning"), rows)
