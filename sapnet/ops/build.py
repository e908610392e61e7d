"""Compilation of the CPU kernel, once per machine, into the user's cache folder."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = (
    "adaptive_filter.cpp",
    *("attention.hpp", "attention_backward.hpp", "backward.hpp", "bands.hpp", "gemm.hpp", "heads.hpp"),
    *("taps.hpp", "weight.hpp", "work.hpp"),
)

# No -ffast-math, because NaN and infinity must propagate.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fopenmp", "-shared", "-fPIC"),
)


class BuildError(Exception):
    """The kernel cannot be compiled or loaded; the message states the reason."""


def library() -> Path:
    """Return the path of the shared library for this machine, compiling it on the first call.

    The file name is a hash of the sources, the compiler's version, its flags and the processor, so a change of any of
    them triggers a new compilation. Concurrent processes wait for the one that compiles.

    Raises:
        BuildError: No compiler is installed, the compilation failed, or the cache folder cannot be written.
    """
    if sys.platform == "win32":
        raise BuildError("Windows is not supported")
    compiler = find_compiler()
    folder = cache_folder()
    target = folder / f"adaptive_filter-{_key(compiler)}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_suffix(".lock")):
            if not target.exists():
                _compile(compiler, target)
    except OSError as error:
        raise BuildError(f"the cache {folder} cannot be used ({error}): set SAPNET_CACHE to another folder") from error
    return target


def cache_folder() -> Path:
    """Return the folder of compiled kernels: `SAPNET_CACHE`, `$XDG_CACHE_HOME/sapnet` or `~/.cache/sapnet`."""
    if folder := os.environ.get("SAPNET_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "sapnet"


def find_compiler() -> list[str]:
    """Return the command of the compiler: `CXX` if set, otherwise the first of c++, g++ and clang++ on the path.

    Raises:
        BuildError: There is no compiler.
    """
    configured = os.environ.get("CXX")
    for command in [configured] if configured else ["c++", "g++", "clang++"]:
        arguments = shlex.split(command)
        if arguments and shutil.which(arguments[0]):
            return arguments
    raise BuildError(
        f"CXX is {configured!r}: no such program" if configured else "no C++ compiler (c++, g++ or clang++) found"
    )


def _key(compiler: list[str]) -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    version = _run([*compiler, "--version"])
    digest.update(repr((compiler, version, FLAGS, platform.system(), platform.machine(), _processor())).encode())
    return digest.hexdigest()[:20]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    # The fields that -march=native depends on.
    fields = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.split(":")[0].strip() in fields)


def _compile(compiler: list[str], target: Path) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".so.part")
    os.close(handle)
    try:
        _run([*compiler, *FLAGS, "-o", name, str(Path(__file__).parent / SOURCES[0])])
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if process.returncode:
        raise BuildError(f"`{shlex.join(command)}` failed:\n{process.stderr.strip()[-2000:]}")
    return process.stdout


class _lock:
    # The operating system releases it when the process ends for any reason.
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import fcntl

        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()
