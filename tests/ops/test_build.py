"""Compiling once, in the face of other processes, missing compilers and closed folders; and what stands in then."""

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
def decide_anew(monkeypatch):
    """Decisions are kept for a process's life: take them again in, and after, each test."""
    monkeypatch.delenv("SAPNET_OPS", raising=False)
    for decision in (cpu.load, backend.get_backend):
        decision.cache_clear()
    yield
    for decision in (cpu.load, backend.get_backend):
        decision.cache_clear()


@pytest.fixture
def counting_compiler(tmp_path, monkeypatch) -> Path:
    """A compiler that leaves a line for each compilation, in a fresh cache."""
    script, log = tmp_path / "counting", tmp_path / "log"
    real = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    # Unoptimised: these tests are about who compiles, not about speed.
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo one >> {log}\nexec {real} "$@" -O0\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "cache"))
    return log


@pytest.mark.slow
@needs_compiler
def test_processes_that_start_together_compile_once(counting_compiler, tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(3)]
    assert [p.wait(timeout=300) for p in started] == [0, 0, 0]
    assert counting_compiler.read_text() == "one\n"
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".lock", ".so"]


@needs_compiler
def test_compiles_once_and_anew_when_a_flag_changes(counting_compiler, monkeypatch):
    first = build.library()
    assert build.library() == first
    assert counting_compiler.read_text() == "one\n"
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    assert build.library() != first
    assert counting_compiler.read_text() == "one\none\n"


def test_a_failed_compilation_says_why_and_leaves_no_library(tmp_path, monkeypatch):
    script = tmp_path / "failing"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such luck >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(build.BuildError, match="no such luck"):
        build.library()
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


@needs_compiler
def test_a_cache_that_is_no_folder_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAPNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.BuildError, match="SAPNET_CACHE"):
        build.library()


@needs_compiler
def test_a_spoiled_library_names_the_file(counting_compiler):
    path = build.library()
    path.write_bytes(b"spoiled")
    with pytest.raises(build.BuildError, match=path.name):
        cpu.load()


def test_cache_folder_follows_the_desktop_standard(monkeypatch):
    monkeypatch.delenv("SAPNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(os.sep, "some"))
    assert build.cache_folder() == Path(os.sep, "some", "sapnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.cache_folder() == Path.home() / ".cache" / "sapnet"


def test_every_source_is_hashed_and_lies_beside_the_code():
    folder = Path(build.__file__).parent
    assert sorted(build.SOURCES) == sorted(p.name for p in folder.iterdir() if p.suffix in (".cpp", ".hpp"))


def test_without_a_compiler_plain_torch_serves_with_one_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    canvas, weight = torch.randn(1, 4, 4, 2), torch.randn(2, 2, 3, 3)
    with pytest.warns(UserWarning, match="no-such-compiler"):
        out = adaptive_filter(canvas, weight)
    torch.testing.assert_close(out, reference.forward(canvas, weight, None, None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_filter(canvas, weight)


def test_forced_to_the_kernel_a_missing_compiler_is_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("SAPNET_OPS", "cpu")
    with pytest.raises(UserError, match="no-such-compiler"):
        backend.get_backend("cpu")
    with pytest.raises(UserError, match="on cuda"):
        backend.get_backend("cuda")


def test_forced_to_plain_torch_and_on_other_devices_it_serves(monkeypatch):
    assert backend.get_backend("cuda") is reference
    monkeypatch.setenv("SAPNET_OPS", "reference")
    assert backend.get_backend("cpu") is reference


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("SAPNET_OPS", "fast")
    with pytest.raises(UserError, match="'fast'"):
        backend.get_backend("cpu")
