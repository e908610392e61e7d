"""The documentation site builds without warnings, and its pages load no external resources."""

import re
import subprocess
import sys

import pytest

from tests.integration.conftest import ROOT

pytest.importorskip("mkdocs", reason="needs the extra sapnet[docs]")


@pytest.mark.slow
def test_the_site_builds_and_loads_no_external_resources(tmp_path):
    arguments = ["-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "architecture.html", "contributing.html"} <= {page.name for page in pages}
    loaded = [tag for page in pages for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", page.read_text())]
    external = [tag for tag in loaded if re.search(r'(?:src|href)="(?:https?:)?//', tag)]
    assert len(loaded) > 100 and external == []
    reference = (tmp_path / "api" / "sampling.html").read_text()
    assert 'id="sapnet.sampling.base.Sampler"' in reference and "make_sampler" in reference
