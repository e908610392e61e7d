"""Compilation of the kernel, its cache, and the fallback without a compiler."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from sapnet.errors import UserError
from sapnet.ops import adaptive_filter, backend, build, cpu, reference

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))) or sys.platform == "win32", reason="no C++ compiler"
)
LOAD = "from sapnet.ops import cpu; cpu.load()"


@pytest.fixture(autouse=True)
def clear_decisions(monkeypatch):
    """Clear the cached decisions before and after each test."""
    monkeypatch.delenv("SAPNET_OPS", raising=False)
    for decision in (cpu.load, backend.get_backend):
        decision.cache_clear()
    yield
    for decision in (cpu.load, backend.get_backend):
        decision.cache_clear()


@pytest.fixture
def counting_compiler(tmp_path, monkeypatch) -> Path:
    """A compiler that logs a line for each compilation, with an empty cache."""
    script, log = tmp_path / "counting", tmp_path / "log"
    real = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    # Not optimised, to compile faster.
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo one >> {log}\nexec {real} "$@" -O0\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "cache"))
    return log


@pytest.mark.slow
@needs_compiler
def test_concurrent_processes_compile_once(counting_compiler, tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(3)]
    assert [p.wait(timeout=300) for p in started] == [0, 0, 0]
    assert counting_compiler.read_text() == "one\n"
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".lock", ".so"]


@needs_compiler
def test_compiles_once_and_again_when_a_flag_changes(counting_compiler, monkeypatch):
    first = build.library()
    assert build.library() == first
    assert counting_compiler.read_text() == "one\n"
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    assert build.library() != first
    assert counting_compiler.read_text() == "one\none\n"


def test_a_failed_compilation_reports_the_reason_and_leaves_no_library(tmp_path, monkeypatch):
    script = tmp_path / "failing"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such luck >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(build.BuildError, match="no such luck"):
        build.library()
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


@needs_compiler
def test_a_cache_that_is_a_file_is_reported_with_the_setting(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.BuildError, match="SAPNET_CACHE"):
        build.library()


@needs_compiler
def test_a_damaged_library_is_reported_with_its_path(counting_compiler):
    path = build.library()
    path.write_bytes(b"spoiled")
    with pytest.raises(build.BuildError, match=path.name):
        cpu.load()


def test_cache_folder_follows_the_xdg_specification(monkeypatch):
    monkeypatch.delenv("SAPNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(os.sep, "some"))
    assert build.cache_folder() == Path(os.sep, "some", "sapnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.cache_folder() == Path.home() / ".cache" / "sapnet"


def test_every_source_is_hashed():
    folder = Path(build.__file__).parent
    assert sorted(build.SOURCES) == sorted(p.name for p in folder.iterdir() if p.suffix in (".cpp", ".hpp"))


def test_plain_torch_is_used_without_a_compiler_with_one_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    canvas, weight = torch.randn(1, 4, 4, 2), torch.randn(2, 2, 3, 3)
    with pytest.warns(UserWarning, match="no-such-compiler"):
        out = adaptive_filter(canvas, weight)
    torch.testing.assert_close(out, reference.forward(canvas, weight, None, None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_filter(canvas, weight)


def test_forced_kernel_without_a_compiler_is_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("SAPNET_OPS", "cpu")
    with pytest.raises(UserError, match="no-such-compiler"):
        backend.get_backend("cpu")
    with pytest.raises(UserError, match="on cuda"):
        backend.get_backend("cuda")


def test_plain_torch_is_used_when_forced_and_on_other_devices(monkeypatch):
    assert backend.get_backend("meta") is reference
    monkeypatch.setenv("SAPNET_OPS", "reference")
    assert backend.get_backend("cpu") is reference


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("SAPNET_OPS", "fast")
    with pytest.raises(UserError, match="'fast'"):
        backend.get_backend("cpu")
