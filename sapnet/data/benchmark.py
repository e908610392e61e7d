"""What the published benchmarks share: a known layout, and known counts that a whole download has to have."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_info

from sapnet.data.folder import FolderData
from sapnet.data.pairs import Pair
from sapnet.errors import UserError

Published = int | Mapping[str, int]
"""Count of pairs: of the whole split, or of each of its sequences."""


class BenchmarkData(FolderData):
    """A published data set below `root`; a benchmark is a subclass that finds its pairs and knows their number.

    A set of another size than the published one is refused, since its figures do not compare, unless `partial` accepts
    it; the count then stands in every result. Validation holds out training sequences or, where `validate_on_test` asks
    for it, uses the test images.

    Args:
        root: Folder of the data set, as its archive unpacks.
        partial: Take what is there, for trials and parts of the set.
        validate_on_test: As `FolderData`, as are all others.
    """

    title: str
    """How messages call the set."""
    published: ClassVar[Mapping[str, Published]]
    """Pairs of each split of the whole set."""

    def __init__(
        self,
        root: str | Path | None = None,
        partial: bool = False,
        validate_on_test: bool = False,
        val_share: float = 0.05,
        name: str | None = None,
        crop: int = 256,
        batch: int = 6,
        seed: int = 0,
        workers: int | None = None,
        eval_batch: int = 1,
        cache: bool = False,
    ):
        super().__init__(
            root,
            val_share=val_share,
            name=name or self.title.lower(),
            crop=crop,
            batch=batch,
            seed=seed,
            workers=workers,
            eval_batch=eval_batch,
            cache=cache,
            validate_on_test=validate_on_test,
        )
        self.partial = partial
        self._shares: dict[str, str] = {}

    @abstractmethod
    def locate(self, split: str) -> list[Pair]:
        """Pairs on disk of `train` or `test`, as many as there are, sorted by name.

        Raises:
            UserError: the split is not there, or a file has no partner.
        """

    def expected(self, split: str) -> Published:
        """Count of pairs of the whole split."""
        return self.published[split]

    def find(self, split: str) -> list[Pair]:
        """Pairs of a split, complete.

        Raises:
            UserError: as `locate`; or their number is not the published one, and `partial` is not set.
        """
        pairs, expected = self.locate(split), self.expected(split)
        wrong = differences(pairs, expected)
        if wrong:
            share = f"{len(pairs)} of {total(expected)} pairs"
            if not self.partial:
                raise UserError(
                    f"{self.title}, {split}: {share} are in {self.root} ({_some(wrong)}): complete the download, or"
                    " accept the part by data.partial=true, which results will say."
                )
            self._shares[split] = share
            rank_zero_info(f"{self.name}: a partial set, {share} for {split}")
        return pairs

    @property
    def remarks(self) -> dict[str, str]:
        """As `FolderData`; and how much of the test set a partial one holds."""
        share = self._shares.get("test")
        return super().remarks | ({"partial": share} if share else {})

    @property
    def test_arguments(self) -> dict[str, Any]:
        """None: a published set is known by its name, wherever it lies."""
        return {}

    def folder(self) -> Path:
        """The data set's folder.

        Raises:
            UserError: none is given, or it is not there.
        """
        if self.root is None:
            raise UserError(f"data.root is not given: name the folder of {self.title} by data.root=FOLDER.")
        if not Path(self.root).is_dir():
            raise UserError(f"there is no folder {self.root}: name the folder of {self.title} by data.root=FOLDER.")
        return Path(self.root)

    def image_folders(self, split: str) -> list[Path]:
        """Where the images of a split lie, whether or not they make pairs."""
        return [self.folder() / split]

    def _has_own(self, split: str) -> bool:
        return False


def total(published: Published) -> int:
    """Count of all pairs."""
    return published if isinstance(published, int) else sum(published.values())


def count(pairs: Sequence[Pair]) -> dict[str, int]:
    """Count of pairs of each sequence, in the order of their names."""
    return dict(sorted(Counter(pair.sequence for pair in pairs).items()))


def differences(pairs: Sequence[Pair], published: Published) -> list[str]:
    """Where counts differ from the published ones, a few words for each sequence; nothing for a whole set."""
    if isinstance(published, int):
        return [] if len(pairs) == published else [f"{len(pairs)} instead of {published}"]
    found = count(pairs)
    return [
        f"{name} {found.get(name, 0)} of {published.get(name, 0)}"
        for name in sorted({*found, *published})
        if found.get(name, 0) != published.get(name, 0)
    ]


def _some(wrong: list[str], shown: int = 3) -> str:
    more = f" and {len(wrong) - shown} sequences more" if len(wrong) > shown else ""
    return ", ".join(wrong[:shown]) + more
