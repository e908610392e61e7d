"""`docs/architecture.md`, its drawing and the vocabulary are up to date."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def layers():
    spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "scripts" / "layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_files_in_the_text_exist():
    named = set(re.findall(r"`(sapnet/[\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text()))
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert len(named) > 15 and missing == []


def test_the_drawing_shows_all_packages():
    module = layers()
    assert (ROOT / "docs" / "layers.svg").read_text() == module.drawing(), "run python docs/scripts/layers.py"
    drawn = {name for row in module.ROWS for name, _ in row if name}
    packages = {path.parent.name for path in (ROOT / "sapnet").glob("*/__init__.py")}
    assert drawn == packages


def test_the_vocabulary_has_at_most_25_terms():
    text = (ROOT / "docs" / "method.md").read_text().partition("## Vocabulary")[2].partition("\n## ")[0]
    terms = re.findall(r"^\| (?!term|---)(.+?) \|", text, re.MULTILINE)
    assert 20 <= len(terms) <= 25
