"""A hook of mkdocs: pages that are made from files outside `docs/`, and one page of the API for each package."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Pages of the site that are files of the repository's root.
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: Commands and their start are described by `--help`.
LEFT_OUT = {"cli"}
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def packages() -> dict[str, list[str]]:
    """Return the public modules of each package, in the order of their names."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "sapnet").rglob("*.py")):
        inner = path.relative_to(ROOT / "sapnet")
        private = any(part.startswith("_") and part != "__init__.py" for part in inner.parts)
        if len(inner.parts) == 1 or inner.parts[0] in LEFT_OUT or private:
            continue
        name = ".".join(("sapnet", *inner.with_suffix("").parts)).removesuffix(".__init__")
        found.setdefault(inner.parts[0], []).append(name)
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the API to the navigation."""
    config.nav = [*(config.nav or []), {"API": [{name: f"api/{name}.md"} for name in packages()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    for name, modules in packages().items():
        text = "\n\n".join([f"# sapnet.{name}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"api/{name}.md", content=f"{text}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to pages of the site, and leave the text alone of those to files that it does not hold."""
    below = "" if page.file.src_uri in PAGES.values() else "docs/"

    def replaced(match: re.Match) -> str:
        path, _, anchor = match[1].partition("#")
        target = (ROOT / below / path).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        inner = target.relative_to(ROOT).as_posix()
        uri = PAGES.get(inner, inner.removeprefix("docs/") if inner.startswith("docs/") else None)
        if uri is None:
            return f"]({_OUTSIDE})"
        return f"]({uri}{'#' + anchor if anchor else ''})"

    return markdown if page.file.src_uri.startswith("api/") else _outside(_LINK.sub(replaced, markdown))


#: Stands for the target of a link to a file that is not part of the site.
_OUTSIDE = "outside:"


def _outside(markdown: str) -> str:
    return re.sub(rf"(?<!!)\[([^\]]*)\]\({_OUTSIDE}\)", r"\1", markdown)
