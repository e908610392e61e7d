"""Comments of the config files: what `--help` says about options and keys."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*)")
_COMMENT = re.compile(r"(?:^|\s)#\s(.*)$")


@dataclass
class Comments:
    """Comments of a config file.

    Attributes:
        title: Comment at the top of the file.
        keys: Comments of keys, by their dotted names: the lines above a key, then the one behind its value.
    """

    title: str = ""
    keys: dict[str, str] = field(default_factory=dict)


def read_comments(path: Path) -> Comments:
    """Return the comments of a config file. Those inside of lists and of lines that set several keys are left out."""
    comments, above, parents = Comments(), [], []
    top = True
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("#"):
            above += [] if "@package" in line else [line.lstrip(" #")]
            continue
        if top:
            comments.title, above, top = " ".join(above), [], False
        match = _KEY.fullmatch(line)
        if match:
            depth = len(match["indent"])
            parents = [(indent, key) for indent, key in parents if indent < depth] + [(depth, match["key"])]
            behind = _COMMENT.findall(match["value"])
            if above or behind:
                comments.keys[".".join(key for _, key in parents)] = " ".join([*above, *behind])
        above = []
    return comments


def option_comments(config_dir: Path, group: str, option: str) -> Comments:
    """Return the comments of an option of a group, and of the files of the same group that it is based on."""
    path = config_dir / group / f"{option}.yaml"
    if not path.is_file():
        return Comments()
    own, based_on = read_comments(path), {}
    for name in _bases(path):
        based_on |= option_comments(config_dir, str(Path(group, name).parent), Path(name).name).keys
    return Comments(own.title, based_on | own.keys)


def _bases(path: Path) -> list[str]:
    content = OmegaConf.load(path)
    defaults = content.get("defaults", []) if isinstance(content, DictConfig) else []
    names = [entry for entry in defaults if isinstance(entry, str)] if isinstance(defaults, ListConfig) else []
    return [name.partition("@")[0] for name in names if name != "_self_"]
