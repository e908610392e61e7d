"""`sapnet COMMAND --help`: the options of a command, explained by the comments of the config files."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sapnet.cli.comments import option_comments, read_comments

_WIDTH, _INDENT = 118, 30


@dataclass(frozen=True)
class Command:
    """Config file of a command.

    Attributes:
        groups: Groups with the options that the file chooses.
        bases: Commands whose config this one extends.
        hidden: Configs in the nodes of groups that are no options, such as `trainer/base`: group and option, by node.
    """

    groups: dict[str, str | list[str] | None]
    bases: list[str]
    hidden: dict[str, tuple[str, str]]


def help_text(config_dir: Path, config_name: str, overrides: list[str]) -> str:
    """Return the help of a command.

    Args:
        config_dir: Folder of the configs.
        config_name: Config of the command.
        overrides: Overrides on the command line: values are shown as they are with them.

    Raises:
        CompactHydraException: The overrides are not valid.
    """
    with hydra.initialize_config_dir(str(config_dir), version_base="1.3"):
        config = hydra.compose(config_name, overrides, return_hydra_config=True)
    command = _read_command(config_dir, config_name)
    texts = [str(config.hydra.help.header).rstrip()]
    own = list(_own_keys(config_dir / f"{config_name}.yaml", config, command))
    if own:
        texts.append("\n".join(["Options (KEY=VALUE), with their values now:", "", *own]))
    if command.groups:
        texts.append("Groups (GROUP=OPTION), and the values of the option chosen now (*):")
    for group in command.groups:
        texts.append("\n".join(_group(config_dir, group, config, command, overrides)))
    texts += [f"It takes all options of `sapnet {base}` too: sapnet {base} --help" for base in command.bases]
    return "\n\n".join([*texts, str(config.hydra.help.footer).rstrip()])


def _read_command(config_dir: Path, config_name: str) -> Command:
    content = _load(config_dir / f"{config_name}.yaml")
    groups, bases, hidden = {}, [], {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            bases += [] if entry == "_self_" else [entry]
            continue
        for name, option in entry.items():
            group = str(name).removeprefix("optional ").removeprefix("override ").lstrip("/")
            if "@" in group:
                folder, _, node = group.partition("@")
                hidden[node] = (folder, str(option))
            elif group.split("/")[0] != "hydra" and "${" not in str(option):
                groups[group] = option
    return Command(groups, bases, hidden)


def _load(path: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(path), resolve=False))


def _own_keys(path: Path, config: DictConfig, command: Command) -> Iterator[str]:
    """Yield lines for the keys that the file of the command sets outside of groups."""
    content, comments = _load(path), {}
    for name in (*command.bases, path.stem):
        comments |= read_comments(path.with_stem(name)).keys
    for key in content:
        if key not in ("defaults", "hydra") and key not in command.groups:
            yield from _values(str(key), config, comments)


def _group(config_dir: Path, group: str, config: DictConfig, command: Command, overrides: list[str]) -> Iterator[str]:
    chosen = _chosen(command.groups[group], group, overrides)
    yield f"  {group}"
    for path in sorted((config_dir / group).glob("*.yaml")):
        title = option_comments(config_dir, group, path.stem).title
        mark = "*" if path.stem in chosen else " "
        title = textwrap.shorten(_first_sentence(title), _WIDTH - _INDENT, placeholder=" ...")
        yield f"{f'  {mark} {path.stem}':<{_INDENT - 1}} {title}".rstrip()
    node = group.replace("/", ".")
    if not OmegaConf.select(config, node):
        return
    yield ""
    comments: dict[str, str] = {}
    for folder, option in [*([command.hidden[node]] if node in command.hidden else []), *((group, o) for o in chosen)]:
        comments |= option_comments(config_dir, folder, option).keys
    yield from _values(node, config, {f"{node}.{key}": text for key, text in comments.items()})


def _chosen(default: str | list[str] | None, group: str, overrides: list[str]) -> list[str]:
    given = [text.partition("=")[2] for text in overrides if text.partition("=")[0] == group]
    value: Any = given[-1] if given else default
    if isinstance(value, str):
        value = value.strip("[]").split(",")
    return [str(option).strip() for option in value or []]


def _values(key: str, config: DictConfig, comments: dict[str, str]) -> Iterator[str]:
    """Yield a line `KEY=VALUE  comment` for a key, or for all keys below a node."""
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException:
        value = "???"
    if isinstance(value, DictConfig) and value:
        for name in value:
            if not str(name).startswith("_"):
                yield from _values(f"{key}.{name}", config, comments)
        return
    start = f"  {key}={_as_text(value)}"
    # `train: {blurred: null, sharp: null}` has one comment.
    comment = comments.get(key) or comments.get(key.rpartition(".")[0], "")
    lines = textwrap.wrap(comment, _WIDTH - _INDENT)
    if len(start) >= _INDENT:
        yield start
    elif lines:
        yield start.ljust(_INDENT) + lines.pop(0)
    else:
        yield start
    yield from (" " * _INDENT + line for line in lines)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[a-z0-9)]\.) (?=[A-Z])", text)[0]


def _as_text(value: Any) -> str:
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_as_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
