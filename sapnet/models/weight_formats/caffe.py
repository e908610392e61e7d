"""Weights of convolutions in a Caffe model, as SVRN's authors distribute them."""

import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sapnet.models.weight_formats.protobuf import (
    BYTES,
    FormatError,
    as_bytes,
    as_text,
    fields,
    read_varint,
    single_fields,
)

#: Field numbers: layers of a network; name and arrays of a layer; numbers and shape of an array; sizes of a shape.
LAYER, NAME, BLOBS, DATA, SHAPE, DIM = 100, 1, 7, 5, 7, 1
#: Field number of layers in the format before 2014.
OLD_LAYER = 2
#: SVRN's recurrences, whose arrays are stored but not used.
UNUSED = re.compile(r"rnn\d_\d")


def read_caffe_model(path: Path) -> dict[str, Tensor]:
    """Return weight and bias of every layer, as `LAYER.weight` and `LAYER.bias`.

    Raises:
        FormatError: The file is not a model, or contains anything else than pairs of weights and biases in float32.
        OSError: The file cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for number, wire, layer in fields(memoryview(path.read_bytes())):
        if number == OLD_LAYER:
            raise FormatError("it has the format of Caffe before 2014")
        if number != LAYER or wire != BYTES:
            continue
        name, blobs = _layer(as_bytes(layer))
        if not blobs:
            continue
        if len(blobs) != 2:
            raise FormatError(f"layer {name} has {len(blobs)} arrays instead of a weight and a bias")
        if f"{name}.weight" in weights:
            raise FormatError(f"layer {name} is repeated")
        weights[f"{name}.weight"], weights[f"{name}.bias"] = blobs
    if not weights:
        raise FormatError("it contains no layer with weights")
    return weights


def _layer(message: memoryview) -> tuple[str, list[Tensor]]:
    name, blobs = "", []
    for number, _, value in fields(message):
        if number == NAME:
            name = as_text(value)
        elif number == BLOBS:
            blobs.append(as_bytes(value))
    return name, [] if UNUSED.fullmatch(name) else [_blob(blob) for blob in blobs]


def _blob(message: memoryview) -> Tensor:
    values = single_fields(message)
    if not {DATA, SHAPE} <= set(values):
        raise FormatError("an array has no shape or is not float32")
    packed = as_bytes(single_fields(as_bytes(values[SHAPE])).get(DIM))
    sizes, position = [], 0
    while position < len(packed):
        size, position = read_varint(packed, position)
        sizes.append(size)
    data = as_bytes(values[DATA])
    if 0 in sizes or 4 * math.prod(sizes) != len(data):
        raise FormatError(f"an array of shape {tuple(sizes)} has {len(data)} bytes")
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(sizes)
