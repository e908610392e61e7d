"""`--help` explains every option by the comments of the config files."""

import pytest

from sapnet.cli.comments import option_comments, read_comments
from sapnet.cli.help import help_text
from sapnet.configs import CONFIG_DIR

ROOTS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


@pytest.mark.parametrize("root", ROOTS)
def test_every_option_has_an_explanation(root):
    """On its own line, or on the next where the option is long."""
    lines = help_text(CONFIG_DIR, root, []).splitlines()
    marked = [line for line in lines if line.startswith("  * ")]
    assert all(len(line.split()) > 2 for line in marked), "each chosen option of a group has a title"
    start = lines.index(next(line for line in lines if line.startswith(("Options (", "Groups ("))))
    options = [i for i, line in enumerate(lines) if i > start and line[:2] == "  " and "=" in line.split()[0]]
    bare = [lines[i] for i in options if len(lines[i]) <= 30 or not lines[i][30:].strip()]
    bare = [line for line in bare if not lines[lines.index(line) + 1].startswith(" " * 30)]
    assert bare == [] and len(options) > 4


def test_options_of_other_commands_are_not_listed():
    text = help_text(CONFIG_DIR, "compare", [])
    assert "network" not in text.partition("Options (")[2].replace("networks", "") and "hydra." not in text
    assert "data.crop" not in help_text(CONFIG_DIR, "count", []), "but it refers to those of train"
    assert "sapnet train --help" in help_text(CONFIG_DIR, "count", [])


def test_values_and_marks_follow_the_command_line():
    text = help_text(CONFIG_DIR, "train", ["steps=7", "trainer=[ddp,bf16]", "data=gopro"])
    assert "  steps=7 " in text and "  * gopro " in text and "  data.root=null " in text and "data.gamma" not in text
    for option in ("* bf16", "* ddp", "  default"):
        assert f"  {option} " in text.partition("\n  trainer\n")[2]


@pytest.mark.parametrize(
    "path", sorted(CONFIG_DIR.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}"
)
def test_every_option_of_a_group_has_a_title(path):
    assert len(read_comments(path).title.split()) > 2


OWN = """# @package _global_
# A title
# of two lines.
defaults:
  - base

# Lost.

node:
  # Above,
  inner: 3   # behind
list: [a, b] # of letters
changed: 4
plain: 'a#b'
"""


def test_comments_are_those_above_and_behind_a_key(tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "base.yaml").write_text("# The base.\nkept: 1  # one\nchanged: 2  # two\n")
    (tmp_path / "group" / "own.yaml").write_text(OWN)
    comments = option_comments(tmp_path, "group", "own")
    assert comments.title == "A title of two lines."
    assert comments.keys == {"node.inner": "Above, behind", "list": "of letters", "kept": "one", "changed": "two"}
