"""Stored scenes: equal to rendered ones, rendered once, and separate for different parameters."""

from pathlib import Path

import numpy as np
import pytest

from sapnet.data.generated import SyntheticData
from sapnet.errors import UserError

SMALL = {"train": 3, "val": 2, "test": 2, "size": 64, "crop": 32, "batch": 2}


def items(store: Path | None, **changes):
    data = SyntheticData(**(SMALL | changes), store=None if store is None else str(store))
    data.setup("test")
    return list(data.whole_images("test"))


def test_stored_scenes_equal_rendered_scenes(tmp_path: Path) -> None:
    for made, first, again in zip(items(None), items(tmp_path), items(tmp_path), strict=True):
        for key in ("blurred", "sharp", "extent"):
            assert (made[key] == first[key]).all() and (made[key] == again[key]).all()
        assert made["name"] == first["name"] == again["name"]


def test_scenes_are_rendered_once_per_parameters(tmp_path: Path) -> None:
    items(tmp_path)
    (path,) = tmp_path.glob("*.npz")
    stamp = path.stat().st_mtime_ns
    items(tmp_path)
    assert path.stat().st_mtime_ns == stamp
    for changes in ({"scene_seed": 1}, {"size": 96}, {"gamma": None}, {"distribution": "synthetic_local"}, {"test": 3}):
        before = set(tmp_path.glob("*.npz"))
        items(tmp_path, **changes)
        assert len(set(tmp_path.glob("*.npz")) - before) == 1, changes


def test_damaged_store_is_reported(tmp_path: Path) -> None:
    items(tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged: delete it"):
        items(tmp_path)


def test_unwritable_store_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(np.zeros(1).tobytes())
    with pytest.raises(UserError, match="cannot be written"):
        items(tmp_path / "file")
