"""The base data module: batches, separation of splits, independence of workers, and resuming."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from sapnet.data.folder import FolderData
from sapnet.data.generated import SyntheticData
from sapnet.data.module import PairData
from sapnet.data.samples import Sample
from sapnet.errors import UserError

Make = Callable[..., PairData]


class Squares(PairData):
    """A data module of random 10x10 images, which implements only `source`."""

    def source(self, split: str) -> "Squares.Pictures":
        return self.Pictures(split)

    class Pictures:
        def __init__(self, split: str):
            self.split = split

        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Sample:
            pictures = np.random.default_rng([*self.split.encode(), index]).integers(0, 256, (2, 10, 10, 3), np.uint8)
            return Sample(f"{self.split}/{index}", *pictures)

        def size(self, index: int) -> tuple[int, int]:
            return 10, 10

        def label(self, index: int) -> str:
            return f"{self.split}/{index}"


@pytest.fixture(params=["gopro", "reds", "folders", "synthetic", "squares"])
def make(request: pytest.FixtureRequest) -> Make:
    """Function that creates a data module with small crops and further arguments."""

    def build(**options) -> PairData:
        options = {"crop": 8, "batch": 2, "workers": 0} | options
        if request.param == "synthetic":
            return SyntheticData(train=3, val=2, test=2, size=32, **options)
        if request.param == "squares":
            return Squares("squares", **options)
        if request.param != "folders":
            return FolderData(request.getfixturevalue(request.param), **options)
        root = request.getfixturevalue("reds")
        named = {
            split: {
                kind: str(root / split / f"{split}_{name}") for kind, name in (("blurred", "blur"), ("sharp", "sharp"))
            }
            for split in ("train", "test")
        }
        return FolderData(**named, **options)

    return build


def names(batches) -> list[str]:
    return [name for batch in batches for name in batch["name"]]


def test_batches_are_dictionaries_of_images_in_range(make: Make) -> None:
    data = make()
    data.setup("fit")
    data.setup("test")
    assert data.name in ("folder", "synthetic", "squares")
    for loader, size in ((data.train_dataloader(), 2), (data.val_dataloader(), None), (data.test_dataloader(), None)):
        for batch in loader:
            shape = batch["blurred"].shape
            assert batch["sharp"].shape == shape and shape[1] == 3 and len(batch["name"]) == shape[0]
            assert (shape[0], *shape[2:]) == (size, 8, 8) if size else shape[2] > 8
            for key in ("blurred", "sharp"):
                assert batch[key].dtype == torch.float32
                assert batch[key].min() >= 0 and batch[key].max() <= 1
                levels = batch[key] * 255
                torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
            if data.name == "synthetic":
                assert batch["extent"].shape == (shape[0], 1, *shape[2:]) and batch["extent"].min() >= 0


def test_no_image_is_in_two_splits(make: Make) -> None:
    """An overlap would invalidate all results."""
    data = make()
    data.setup("fit")
    data.setup("test")
    items = {split: list(data.whole_images(split)) for split in ("train", "val", "test")}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        for key in ("blurred", "sharp"):
            pictures = {item[key].numpy().tobytes() for item in items[one]}
            assert not pictures & {item[key].numpy().tobytes() for item in items[other]}


def test_epoch_visits_each_training_image_once_and_evaluation_each_in_order(make: Make) -> None:
    data = make(batch=1)
    data.setup("fit")
    data.setup("test")
    expected = [item["name"] for item in data.whole_images("train")]
    shown = names(data.train_dataloader())
    assert sorted(shown) == sorted(expected)
    assert names(data.test_dataloader()) == [item["name"] for item in data.whole_images("test")]


def test_crops_do_not_depend_on_workers_or_cache(make: Make) -> None:
    seen = []
    for options in ({"workers": 0}, {"workers": 2}, {"cache": True}):
        data = make(**options)
        data.setup("fit")
        seen.append([(batch["name"], batch["blurred"], batch["sharp"]) for batch in data.train_dataloader()])
    for other in seen[1:]:
        assert [batch[0] for batch in other] == [batch[0] for batch in seen[0]]
        for (_, *images), (_, *expected) in zip(other, seen[0], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))


def test_seed_changes_the_crops_and_not_the_held_out_images(make: Make) -> None:
    one, two = make(seed=0), make(seed=1)
    one.setup("fit")
    two.setup("fit")
    assert names(one.val_dataloader()) == names(two.val_dataloader())
    crops = [torch.cat([batch["blurred"] for batch in data.train_dataloader()]) for data in (one, two)]
    assert not torch.equal(*crops)


def test_too_large_crop_is_rejected_before_images_are_loaded(make: Make) -> None:
    data = make(crop=512, cache=True)
    with pytest.raises(UserError, match=r"smaller than the crop of 512x512: set data\.crop to"):
        data.setup("fit")
    data.setup("test")


def test_overfitting_repeats_the_same_crops(make: Make) -> None:
    data = make()
    data.setup("fit")
    data.trainer = pl.Trainer(overfit_batches=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    loader = data.train_dataloader()
    first, second = next(iter(loader)), next(iter(loader))
    assert first["name"] == second["name"] and torch.equal(first["blurred"], second["blurred"])


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_train_on_different_images(make: Make, rank: int) -> None:
    class TwoProcesses:
        overfit_batches, global_rank, world_size = 0, rank, 2

    whole, part = make(batch=2), make(batch=1)
    whole.setup("fit")
    part.setup("fit")
    part.trainer = TwoProcesses()
    assert names(part.train_dataloader()) == names(whole.train_dataloader())[rank::2]


class Recorder(pl.LightningModule):
    """A model that records its batches and accumulates them in an order-dependent way."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.seen: list[tuple[list[str], float]] = []

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        value = batch["blurred"].double().cumsum(0).square().sum()
        self.seen.append((batch["name"], value.item()))
        return (self.weight - value) ** 2

    def validation_step(self, batch: dict, _: int) -> None:
        assert batch["blurred"].shape == (1, 3, 10, 10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class SaveOften(pl.Callback):
    """Saves a checkpoint after each batch and epoch, named by the number of batches."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, model: Recorder, *_) -> None:
        trainer.save_checkpoint(self.folder / f"batch{len(model.seen)}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, model: Recorder) -> None:
        trainer.save_checkpoint(self.folder / f"epoch{len(model.seen)}.ckpt")


def fit(workers: int, save_in: Path | None = None, resume: Path | None = None, batch: int = 2, **options) -> Recorder:
    model = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[SaveOften(save_in)] if save_in else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, datamodule=Squares("squares", crop=6, batch=batch, workers=workers), ckpt_path=resume)
    return model


@pytest.mark.parametrize(
    ("workers", "options", "total"),
    [
        (0, {"max_epochs": 3}, 15),
        (1, {"max_epochs": 3}, 15),
        (0, {"max_steps": 11, "max_epochs": -1}, 11),
        (0, {"max_epochs": 4, "limit_train_batches": 3}, 12),
        (0, {"max_epochs": 3, "val_check_interval": 2}, 15),
    ],
)
def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, workers: int, options: dict, total: int) -> None:
    """A plain loader would repeat the start of the epoch and skip its end."""
    whole = fit(workers, tmp_path, **options)
    assert len(whole.seen) == total and len({value for _, value in whole.seen}) == total
    length = options.get("limit_train_batches", 5)
    cuts = [("batch", 1), ("batch", length - 1), ("batch", length), ("epoch", length), ("batch", length + 1)]
    for kind, cut in cuts:
        resumed = fit(workers, resume=tmp_path / f"{kind}{cut}.ckpt", **options)
        assert resumed.seen == whole.seen[cut:], f"cut at {kind} {cut}"
        assert torch.equal(resumed.weight, whole.weight)


def test_resuming_with_a_different_batch_size_is_rejected(tmp_path: Path) -> None:
    fit(0, tmp_path, max_epochs=1)
    with pytest.raises(UserError, match="batch=2 and this run has batch=3"):
        fit(0, resume=tmp_path / "batch2.ckpt", batch=3, max_epochs=2)


def test_distribution_is_passed_to_the_scenes_and_checked() -> None:
    options = {"train": 1, "val": 1, "test": 2, "size": 64, "crop": 8}
    data = SyntheticData(**options, name="synthetic_local", distribution="synthetic_local")
    data.setup("test")
    for item in data.whole_images("test"):
        assert 0.10 <= (item["extent"] > 1).float().mean() <= 0.25
    with pytest.raises(UserError, match="choose one of synthetic, synthetic_local"):
        SyntheticData(**options, distribution="local").setup("test")
