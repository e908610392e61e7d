"""Weights in a checkpoint of TensorFlow 1, as DPN's authors distribute them.

A checkpoint (a tensor bundle) has an index, a sorted table of names with shape and position, and the data.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sapnet.models.weight_formats.protobuf import (
    FormatError,
    as_bytes,
    as_number,
    as_text,
    fields,
    read_varint,
    single_fields,
)

#: Endings of the two files.
BUNDLE = INDEX, DATA = ".index", ".data-00000-of-00001"
#: Last eight bytes of a table, size of its footer and of what follows a block: compression and checksum.
MAGIC, FOOTER, TRAILER = 0xDB4775248B80FB57, 48, 5
#: Field numbers of an entry: type, shape, file, position, size, checksum.
ENTRY = {DTYPE := 1, SHAPE := 2, SHARD := 3, OFFSET := 4, SIZE := 5, CHECKSUM := 6}
FLOAT32 = 1
#: Values of the optimizer, which are beside the weights.
OPTIMIZER = re.compile(r"(.*/)?(Adam|Adam_1|Variable|beta[12]_power)(_\d+)?")
#: A variable of a layer: scope of the network, layer, kind.
VARIABLE = re.compile(r"[^/]+/(.+)/(weights|biases)")


def files_of_bundle(path: Path) -> tuple[Path, Path]:
    """Return the index and the data of a checkpoint, given one of them."""
    stem = str(path).removesuffix(INDEX).removesuffix(DATA)
    return Path(stem + INDEX), Path(stem + DATA)


def read_bundle(path: Path) -> dict[str, Tensor]:
    """Return weight and bias of every layer, with the names of PyTorch: `a/b` of the file is `a.b`.

    The optimizer's values are left out. Weights of convolutions get PyTorch's order of dimensions.

    Args:
        path: The index or the data.

    Raises:
        FormatError: The files are not a checkpoint, or it contains anything else than weights and biases in float32.
        OSError: A file cannot be read.
    """
    index, data = files_of_bundle(path)
    weights, content = {}, memoryview(data.read_bytes())
    for key, value in _table(memoryview(index.read_bytes())):
        if key == "":
            _check_header(value)
        elif not OPTIMIZER.fullmatch(key):
            match = VARIABLE.fullmatch(key)
            if match is None:
                raise FormatError(f"{key} is neither the weight nor the bias of a layer")
            name = match[1].replace("/", ".") + (".weight" if match[2] == "weights" else ".bias")
            if name in weights:
                raise FormatError(f"{key} is repeated")
            weights[name] = _tensor(key, value, content)
    if not weights:
        raise FormatError("it contains no weights")
    return weights


def _check_header(message: memoryview) -> None:
    header = single_fields(message)
    if as_number(header.get(1), 0) != 1 or as_number(header.get(2), 0) != 0:
        raise FormatError("it has several files of data, or another order of bytes")


def _tensor(key: str, message: memoryview, content: memoryview) -> Tensor:
    entry = single_fields(message)
    if as_number(entry.get(DTYPE), 0) != FLOAT32 or as_number(entry.get(SHARD), 0) or set(entry) - ENTRY:
        raise FormatError(f"{key} is not a whole array in float32")
    # One message per dimension.
    dimensions = [as_bytes(value) for number, _, value in fields(as_bytes(entry.get(SHAPE))) if number == 2]
    sizes = [as_number(single_fields(dimension).get(1), 0) for dimension in dimensions]
    offset, size = as_number(entry.get(OFFSET), 0), as_number(entry.get(SIZE), 0)
    if 0 in sizes or size != 4 * math.prod(sizes) or offset + size > len(content):
        raise FormatError(f"{key} of shape {tuple(sizes)} is not inside the data")
    array = np.frombuffer(content[offset : offset + size], "<f4").astype(np.float32).reshape(sizes)
    # (height, width, in, out) of a convolution and (height, width, out, in) of a transposed one.
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))


def _table(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    footer = data[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise FormatError("the index does not end like a table")
    _, _, position = _handle(footer, 0)
    start, size, _ = _handle(footer, position)
    for _, handle in _entries(data, start, size):
        block, length, _ = _handle(handle, 0)
        yield from ((as_text(memoryview(key)), value) for key, value in _entries(data, block, length))


def _handle(data: memoryview, position: int) -> tuple[int, int, int]:
    start, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return start, size, position


def _entries(data: memoryview, start: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    # Entries of a block: each key shares its first bytes with the previous one.
    if size < 4 or start + size + TRAILER > len(data):
        raise FormatError("a block is not inside the index")
    if data[start + size] != 0:
        raise FormatError("the index is compressed")
    block = data[start : start + size]
    end = size - 4 * (int.from_bytes(block[-4:], "little") + 1)
    if end < 0:
        raise FormatError("a block is damaged")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if shared > len(key) or position + added + length > end:
            raise FormatError("an entry is not inside its block")
        key = key[:shared] + bytes(block[position : position + added])
        position += added
        yield key, block[position : position + length]
        position += length
