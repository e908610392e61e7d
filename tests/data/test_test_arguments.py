"""Identification of test images, which keeps the results of different sets apart."""

from sapnet.data.folder import FolderData
from sapnet.data.generated import SyntheticData
from sapnet.data.gopro import GoProData


def test_scenes_are_identified_by_their_parameters():
    one = SyntheticData(test=4).test_arguments
    for change in ({"test": 2}, {"size": 64}, {"gamma": None}, {"scene_seed": 1}, {"distribution": "synthetic_local"}):
        assert SyntheticData(**{"test": 4, **change}).test_arguments != one
    for change in ({"train": 7}, {"crop": 32}, {"batch": 2}, {"seed": 5}, {"store": "kept"}):
        assert SyntheticData(**{"test": 4, **change}).test_arguments == one, "these change no test scene"


def test_folders_are_identified_by_path_and_published_sets_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"blurred": "a", "sharp": "b"}
    assert FolderData(root="a").test_arguments == FolderData(root=tmp_path / "a").test_arguments
    assert FolderData(root="a").test_arguments != FolderData(root="b").test_arguments
    assert FolderData(root="x", test=given).test_arguments == FolderData(root="y", test=given).test_arguments
    assert GoProData(root="a", blur="blur").test_arguments == {}
