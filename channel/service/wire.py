"""Reading requests: what cannot be read is refused by the name of its field."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from serendipity.channel.errors import FieldViolation, InvalidQuery

_LENGTH_DELIMITED = 2
"""Wire type of texts and messages."""

_Request = TypeVar("_Request", bound=Message)


async def parse(kind: type[_Request], data: bytes) -> _Request:
    """Read a request. Raises InvalidQuery naming the field that cannot be read."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        # Of 100,000 items the search takes half a second: others must not wait for it.
        raise InvalidQuery([await asyncio.to_thread(_violation, kind, data)]) from error


def _violation(kind: type[Message], data: bytes, path: str = "") -> FieldViolation:
    """Find what cannot be read in a message: its first text that is not valid UTF-8, or else the message itself."""
    # Stubs know two classes of descriptors, and functions that take one.
    descriptor: Any = kind.DESCRIPTOR
    indexes: Counter[int] = Counter()
    for number, value in _texts_and_messages(data):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        name = f"{path}.{field.name}".lstrip(".") + (f"[{indexes[number]}]" if field.is_repeated else "")
        indexes[number] += 1
        if field.type == FieldDescriptor.TYPE_STRING:
            try:
                value.decode()
            except UnicodeDecodeError as error:
                found = f"found the byte 0x{value[error.start]:02x} at position {error.start}"
                return FieldViolation(name, f"{found}, expected valid UTF-8 without lone surrogates")
        elif field.message_type is not None:
            inner = GetMessageClass(field.message_type)
            try:
                inner.FromString(value)
            except DecodeError:
                return _violation(inner, value, name)
    found = f"found {len(data)} bytes that cannot be read"
    return FieldViolation(path or descriptor.name, f"{found}, expected a {descriptor.name}")


def _texts_and_messages(data: bytes) -> list[tuple[int, bytes]]:
    """Split a message into the numbers and the contents of its fields; none where the bytes are no message."""
    try:
        fields = UnknownFieldSet(Empty.FromString(data))
    except DecodeError:
        return []
    every = [fields[i] for i in range(len(fields))]
    return [(field.field_number, field.data) for field in every if field.wire_type == _LENGTH_DELIMITED]
