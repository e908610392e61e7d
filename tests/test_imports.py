"""Imports run downwards only, through the whole package."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sapnet

PACKAGE = Path(sapnet.__file__).parent
#: Parts that each part may import, besides itself and `BASE`: all lower ones, not only the next.
LOWER = ("ops", "layers", "sampling", "models", "data", "checkpoints")
ALLOWED = {
    "ops": (),
    "layers": ("ops",),
    "sampling": ("ops", "layers"),
    "models": ("ops", "layers", "sampling"),
    "data": (),
    "checkpoints": ("ops", "layers", "sampling", "models"),
    "evaluation": LOWER,
    "training": (*LOWER, "evaluation"),
    "reporting": (*LOWER, "training", "evaluation"),
    "cli": (*LOWER, "training", "evaluation", "reporting"),
}
#: Upward imports that are allowed: the study of points measures the noise of the policy gradient.
EXCEPTIONS = {("sapnet.evaluation.study_runner", "sapnet.training.gradient_noise")}
#: Modules of the package itself that every part may import, and that import none of the parts.
BASE = ("checks", "configs", "error_messages", "errors", "files", "interrupts", "markdown", "provenance")


def imported(text: str) -> Iterator[str]:
    """Yield the modules of sapnet that a file imports, including imports in functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sapnet")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not supported here"
            if node.module and node.module.split(".")[0] == "sapnet":
                # `from sapnet.x import y`: y may be a module.
                yield from (_existing(f"{node.module}.{alias.name}") for alias in node.names)


def _existing(name: str) -> str:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return name if path.is_dir() or path.with_suffix(".py").is_file() else name.rpartition(".")[0]


def modules() -> dict[str, Path]:
    paths = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def part(module: str) -> str:
    return (*module.split("."), "")[1]


def upward(module: str, text: str) -> list[str]:
    """Return the imports of a module that are not allowed."""
    own = part(module)
    allowed = {own, "", *BASE, *ALLOWED.get(own, ())} if own not in ("", "__main__") else {"cli", ""}
    return [name for name in imported(text) if part(name) not in allowed and (module, name) not in EXCEPTIONS]


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=modules().keys())
def test_imports_run_downwards(module, path):
    assert part(module) in ("", "__main__", *BASE, *ALLOWED), "add the new part to ALLOWED or BASE"
    assert upward(module, path.read_text()) == []


def test_there_is_no_import_cycle():
    graph = {module: set(imported(path.read_text())) - {module} for module, path in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sapnet.ops.cpu", "from sapnet.layers import padding"),
        ("sapnet.models.srn", "import sapnet.training.losses"),
        ("sapnet.data.pairs", "def f():\n    from sapnet.models.srn import SRN"),
        ("sapnet.checkpoints.network", "from sapnet.training.losses import StageLoss"),
        ("sapnet.evaluation.runner", "from sapnet.training.losses import StageLoss"),
        ("sapnet.reporting.study", "from sapnet.cli.train import main"),
        ("sapnet.files", "from sapnet.data import pairs"),
    ],
)
def test_an_upward_import_is_detected(module, line):
    assert len(upward(module, line)) == 1
