"""Fixture that runs a test with each backend."""

import importlib
from types import ModuleType

import pytest
import torch

from sapnet.ops import backend, cpu, reference
from sapnet.ops.build import BuildError


def import_triton_backend() -> ModuleType:
    """Import the GPU backend; without a GPU its kernels run in Triton's interpreter (`tests/conftest.py`)."""
    pytest.importorskip("triton", reason="the Triton kernels need the package triton")
    gpu = importlib.import_module("sapnet.ops.gpu")
    if not torch.cuda.is_available():
        # Each program of the interpreter takes milliseconds.
        gpu.BLOCK_TAPS = 512
    return gpu


@pytest.fixture(params=["reference", "cpu"])
def implementation(request, monkeypatch):
    """Return the module of a backend, which `adaptive_filter` uses during the test."""
    if request.param == "cpu":
        try:
            cpu.load()
        except BuildError as error:
            pytest.skip(f"the kernel cannot be built here: {error}")
    module = {"reference": reference, "cpu": cpu}[request.param]
    monkeypatch.setattr(backend, "get_backend", lambda device: module)
    return module
