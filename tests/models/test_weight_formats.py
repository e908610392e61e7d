"""Caffe models and checkpoints of TensorFlow 1: files as the authors' libraries write them, and damaged ones."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.models.dpn import DPN
from sapnet.models.svrn import SVRN
from sapnet.models.weight_files import read_weights
from sapnet.models.weights import load_published


def varint(number: int) -> bytes:
    data = b""
    while number >= 128:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def floats(array) -> bytes:
    return array.detach().contiguous().numpy().astype("<f4").tobytes()


def blob(array) -> bytes:
    return field(5, floats(array)) + field(7, field(1, b"".join(map(varint, array.shape))))


def layer(name: str, kind: str, *arrays) -> bytes:
    blobs = b"".join(field(7, blob(array)) for array in arrays)
    return field(100, field(1, name.encode()) + field(2, kind.encode()) + field(3, b"data") + blobs)


def caffe_model(network: SVRN) -> bytes:
    """Return the model of a network, with layers that have no weights or weights that are not used."""
    convs = [layer(name, "Convolution", conv.weight, conv.bias) for name, conv in network.named_children()]
    unused = layer("rnn1_1", "GateRecurrent", torch.ones(2, 2), torch.ones(2, 2), torch.ones(2))
    return field(1, b"SVRN") + layer("data", "Input") + b"".join(convs) + unused + layer("relu", "ReLU")


def block(entries: list[tuple[bytes, bytes]], restart: int = 16) -> bytes:
    data, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart == 0:
            restarts.append(len(data))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return data + b"".join(n.to_bytes(4, "little") for n in [*restarts, len(restarts)])


def table(entries: list[tuple[bytes, bytes]], per_block: int = 30) -> bytes:
    data, index = b"", []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        content = block(part)
        index.append((part[-1][0], varint(len(data)) + varint(len(content))))
        data += content + bytes(5)
    handles = b""
    for content in (block([]), block(index, 1)):
        handles += varint(len(data)) + varint(len(content))
        data += content + bytes(5)
    return data + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def bundle(state: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    """Return index and data of a checkpoint with the weights and the values of an optimizer."""
    variables: dict[str, torch.Tensor] = {"beta1_power": torch.tensor(0.9), "Variable": torch.tensor(7.0)}
    for name, value in state.items():
        path, kind = name.replace(".", "/").rsplit("/", 1)
        key = f"g_net/{path}/{'weights' if kind == 'weight' else 'biases'}"
        variables[key] = value.permute(2, 3, 1, 0) if value.ndim == 4 else value
        variables |= {f"{key}/Adam": variables[key] * 0, f"{key}/Adam_1": variables[key] + 1}
    entries, data = [(b"", field(1, 1) + field(3, field(1, 1)))], b""
    for key in sorted(variables):
        content = floats(variables[key])
        shape = b"".join(field(2, field(1, size)) for size in variables[key].shape)
        place = field(4, len(data)) if data else b""
        checksum = varint(6 << 3 | 5) + b"\1\2\3\4"
        entries.append((key.encode(), field(1, 1) + field(2, shape) + place + field(5, len(content)) + checksum))
        data += content
    return table(entries), data


def small_svrn() -> SVRN:
    return SVRN(2, (2, 2, 2, 2))


def small_dpn() -> DPN:
    return DPN((2, 3, 4))


def write(folder, suffix=""):
    """Write the files of a Caffe model or of a checkpoint; return the network and one file."""
    torch.manual_seed(1)
    if suffix == ".caffemodel":
        network = small_svrn()
        (folder / "net.caffemodel").write_bytes(caffe_model(network))
    else:
        network = small_dpn()
        index, data = bundle(network.state_dict())
        (folder / "net.index").write_bytes(index)
        (folder / "net.data-00000-of-00001").write_bytes(data)
    return network, folder / f"net{suffix}"


@pytest.mark.parametrize("suffix", [".caffemodel", ".index", ".data-00000-of-00001"])
def test_files_of_other_libraries_are_loaded(suffix, tmp_path):
    published, path = write(tmp_path, suffix)
    torch.manual_seed(2)
    network = small_svrn() if suffix == ".caffemodel" else small_dpn()
    digest = load_published(network, path)
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), network.parameters(), strict=True))
    files = [path] if suffix == ".caffemodel" else [tmp_path / "net.index", tmp_path / "net.data-00000-of-00001"]
    assert digest == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


CONV = torch.ones(2, 1, 3, 3)
CAFFE = {
    "text": (b"<!DOCTYPE html>", "type"),
    "nothing": (b"", "no layer with weights"),
    "old": (field(2, b"layer"), "before 2014"),
    "long number": (b"\xff" * 11, "a number is damaged"),
    "one array": (layer("a", "Convolution", CONV), "layer a has 1 arrays"),
    "twice": (layer("a", "Convolution", CONV, CONV) * 2, "layer a is repeated"),
    "double": (field(100, field(7, field(8, bytes(16)) + field(7, field(1, b"\2")))), "not float32"),
    "short": (field(100, field(7, field(5, bytes(4)) + field(7, field(1, b"\2")))), r"shape \(2,\) has 4 bytes"),
    "huge": (field(100, field(7, field(5, b"") + field(7, field(1, varint(0) + varint(2**64 - 1))))), "has 0 bytes"),
    "name": (field(100, field(1, b"\xff")), "a name is not text"),
}


@pytest.mark.parametrize("case", CAFFE)
def test_other_caffe_files_are_refused(case, tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(CAFFE[case][0])
    with pytest.raises(UserError, match=rf"net\.caffemodel: not loaded: .*{CAFFE[case][1]}"):
        read_weights(path)


HEADER = (b"", field(1, 1))
ENTRY = field(1, 1) + field(2, field(2, field(1, 2))) + field(5, 8)
TENSORFLOW = {
    "text": (b"<!DOCTYPE html>", "does not end like a table"),
    "empty": (table([HEADER]), "no weights"),
    "shards": (table([(b"", field(1, 2))]), "several files"),
    "big endian": (table([(b"", field(1, 1) + field(2, 1))]), "another order of bytes"),
    "integers": (table([HEADER, (b"n/a/weights", field(1, 3) + field(5, 8))]), "n/a/weights is not a whole array"),
    "unknown": (table([HEADER, (b"n/a/moving_mean", ENTRY)]), "n/a/moving_mean is neither"),
    "outside": (table([HEADER, (b"n/a/weights", ENTRY + field(4, 4))]), r"shape \(2,\) is not inside the data"),
    "shape": (table([HEADER, (b"n/a/weights", field(1, 1) + field(5, 8))]), r"shape \(\) is not inside"),
    "twice": (table([HEADER, (b"n/a/weights", ENTRY), (b"n/a/weights", ENTRY)]), "repeated"),
    "compressed": (block([HEADER]) + b"\1" + table([HEADER])[len(block([HEADER])) + 1 :], "compressed"),
}


@pytest.mark.parametrize("case", TENSORFLOW)
def test_other_checkpoints_are_refused(case, tmp_path):
    path = tmp_path / "net.index"
    path.write_bytes(TENSORFLOW[case][0])
    (tmp_path / "net.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(UserError, match=rf"net\.index: not loaded: .*{TENSORFLOW[case][1]}"):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"net\.caffemodel: no such file"):
        read_weights(tmp_path / "net.caffemodel")
    _, path = write(tmp_path, ".index")
    (tmp_path / "net.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"net\.data-00000-of-00001: no such file"):
        read_weights(path)


@pytest.fixture(scope="module", params=[".caffemodel", ".index"])
def intact(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("intact"), request.param)[1]


@settings(max_examples=40, deadline=None)
@given(position=st.floats(0, 0.999), value=st.integers(0, 255), cut=st.booleans())
def test_damaged_files_end_in_one_sentence_or_are_read(intact, tmp_path_factory, position, value, cut):
    """No other error; a damaged number of the weights themselves cannot be seen."""
    content = bytearray(intact.read_bytes())
    place = int(position * len(content))
    content[place] = value
    damaged = tmp_path_factory.mktemp("damaged") / intact.name
    damaged.write_bytes(content[:place] if cut else content)
    if intact.suffix == ".index":
        data = intact.with_suffix(".data-00000-of-00001")
        damaged.with_suffix(data.suffix).write_bytes(data.read_bytes())
    try:
        weights = read_weights(damaged)
    except UserError as error:
        assert str(error).startswith(f"{damaged}: not loaded: ")
    else:
        assert all(value.dtype == torch.float32 for value in weights.values())
