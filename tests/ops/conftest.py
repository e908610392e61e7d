"""Either backend, by name."""

import pytest

from sapnet.ops import backend, cpu, reference
from sapnet.ops.build import BuildError


@pytest.fixture(params=["reference", "cpu"])
def implementation(request, monkeypatch):
    """The module of one backend, which also serves `adaptive_filter` during the test."""
    if request.param == "cpu":
        try:
            cpu.load()
        except BuildError as error:
            pytest.skip(f"the kernel cannot be built here: {error}")
    module = {"reference": reference, "cpu": cpu}[request.param]
    monkeypatch.setattr(backend, "get_backend", lambda device: module)
    return module
