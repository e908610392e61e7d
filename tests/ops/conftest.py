"""Fixture that runs a test with each backend."""

import pytest

from sapnet.ops import backend, cpu, reference
from sapnet.ops.build import BuildError


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
