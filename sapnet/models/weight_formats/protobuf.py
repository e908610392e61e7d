"""Fields of messages in the protocol buffers wire format."""

from collections.abc import Iterator

#: Wire types: variable-length integer, 8 bytes, bytes with their length, 4 bytes.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class FormatError(ValueError):
    """A file of weights that does not follow its format."""


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned integer of variable length and the position after it.

    Raises:
        FormatError: The data end before the number, or it has more than 64 bits.
    """
    value = 0
    for i, byte in enumerate(data[position : position + 10]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            if value >= 2**64:
                break
            return value, position + i + 1
    raise FormatError("a number is damaged")


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Iterate over number, wire type and value of the fields; the value is a number for `VARINT` and else the bytes.

    Raises:
        FormatError: The message is damaged, or uses a wire type that is no longer in use.
    """
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        wire = tag & 7
        if wire == VARINT:
            value, position = read_varint(message, position)
            yield tag >> 3, wire, value
            continue
        if wire == BYTES:
            length, position = read_varint(message, position)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise FormatError(f"a field has the unknown type {wire}")
        if length > len(message) - position:
            raise FormatError("a field ends after its message")
        yield tag >> 3, wire, message[position : position + length]
        position += length


def single_fields(message: memoryview) -> dict[int, int | memoryview]:
    """Return the values of a message whose fields do not repeat, by number.

    Raises:
        FormatError: The message is damaged, or a field repeats.
    """
    values: dict[int, int | memoryview] = {}
    for number, _, value in fields(message):
        if number in values:
            raise FormatError(f"field {number} is repeated")
        values[number] = value
    return values


def as_number(value: int | memoryview | None, default: int | None = None) -> int:
    """Return the value of a field that is a number; a missing field has the default.

    Raises:
        FormatError: It is not a number, or missing without a default.
    """
    value = default if value is None else value
    if not isinstance(value, int):
        raise FormatError("a number is missing")
    return value


def as_bytes(value: int | memoryview | None) -> memoryview:
    """Return the value of a field that consists of bytes; a missing field is empty.

    Raises:
        FormatError: It is a number.
    """
    if isinstance(value, int):
        raise FormatError("a field is a number instead of bytes")
    return memoryview(b"") if value is None else value


def as_text(value: int | memoryview | None) -> str:
    """Return the value of a field that is text; a missing field is empty.

    Raises:
        FormatError: It is not text in UTF-8.
    """
    try:
        return bytes(as_bytes(value)).decode()
    except UnicodeDecodeError as error:
        raise FormatError("a name is not text") from error
