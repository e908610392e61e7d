"""Consistency of pins, citation, hooks and workflow."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sapnet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    named = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in named}


def test_every_dependency_is_pinned_to_an_allowed_version():
    extras = PROJECT["optional-dependencies"].values()
    declared = [*PROJECT["dependencies"], *(package for extra in extras for package in extra)]
    requirements = [r for r in map(Requirement, declared) if canonicalize_name(r.name) != "sapnet"]
    versions = pins()
    wrong = [str(r) for r in requirements if not r.specifier.contains(versions.get(canonicalize_name(r.name), "0"))]
    assert len(requirements) > 20 and not wrong


def test_the_hooks_use_the_pinned_linter():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    used = {package for hook in hooks for package in hook["additional_dependencies"]}
    assert used == {f"ruff=={pins()['ruff']}"}


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == sapnet.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_workflow_tests_the_versions_of_python_that_the_readme_names():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    tested = set(job["strategy"]["matrix"]["python-version"])
    named = re.search(r"Python (3\.\d+) or (3\.\d+)", (ROOT / "README.md").read_text())
    assert named and tested == set(named.groups())
    assert any(step.get("run", "").startswith("make test") for step in job["steps"])
