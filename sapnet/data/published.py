"""Base class of the published data sets: a fixed folder layout and known numbers of pairs."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_info

from sapnet.data.folder import FolderData
from sapnet.data.pairs import Pair
from sapnet.errors import UserError

PairCounts = int | Mapping[str, int]
"""Number of pairs of a split, or of each of its sequences."""


class PublishedData(FolderData):
    """A published data set below `root`. Subclasses find its pairs and define their number.

    A set with a different number of pairs is rejected, because results on it are not comparable. `partial` accepts it,
    and every result then contains the number of pairs. Validation holds out training sequences or, with
    `validate_on_test`, uses the test images.

    Args:
        root: Folder of the data set, as unpacked from its archive.
        partial: Whether to accept an incomplete set.
        name: Name of the data in results and tables; by default the title of the set in lower case.
        options: Other arguments of `FolderData`.
    """

    title: str
    """Name of the set in messages."""
    pair_counts: ClassVar[Mapping[str, PairCounts]]
    """Number of pairs of each split of the complete set."""

    def __init__(self, root: str | Path | None = None, partial: bool = False, name: str | None = None, **options: Any):
        super().__init__(root, name=name or self.title.lower(), **options)
        self.partial = partial
        self._shares: dict[str, str] = {}

    @abstractmethod
    def locate(self, split: str) -> list[Pair]:
        """Return the available pairs of `train` or `test`, sorted by name.

        Raises:
            UserError: The split does not exist, or a file has no partner.
        """

    def expected(self, split: str) -> PairCounts:
        """Return the number of pairs of the complete split."""
        return self.pair_counts[split]

    def find(self, split: str) -> list[Pair]:
        """Return the pairs of a split.

        Raises:
            UserError: The pairs cannot be located, or their number is wrong and `partial` is off.
        """
        pairs, expected = self.locate(split), self.expected(split)
        wrong = count_differences(pairs, expected)
        if wrong:
            share = f"{len(pairs)} of {total_pairs(expected)} pairs"
            if not self.partial:
                raise UserError(
                    f"{self.title}, {split}: {share} are in {self.root} ({_first(wrong)}): complete the download, or"
                    " accept the part by data.partial=true, which is recorded in all results."
                )
            self._shares[split] = share
            rank_zero_info(f"{self.name}: incomplete set, {share} for {split}")
        return pairs

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks of `FolderData`, and the share of an incomplete test set."""
        share = self._shares.get("test")
        return super().remarks | ({"partial": share} if share else {})

    @property
    def test_arguments(self) -> dict[str, Any]:
        """Empty: a published set is identified by its name, independently of its location."""
        return {}

    def folder(self) -> Path:
        """Return the folder of the data set.

        Raises:
            UserError: The folder is not set or does not exist.
        """
        if self.root is None:
            raise UserError(f"data.root is not set: name the folder of {self.title} by data.root=FOLDER.")
        if not Path(self.root).is_dir():
            raise UserError(f"there is no folder {self.root}: name the folder of {self.title} by data.root=FOLDER.")
        return Path(self.root)

    def image_folders(self, split: str) -> list[Path]:
        """Return the folders of the images of a split, including images without a partner."""
        return [self.folder() / split]

    def _has_own(self, split: str) -> bool:
        return False


def total_pairs(counts: PairCounts) -> int:
    """Return the number of pairs of all sequences."""
    return counts if isinstance(counts, int) else sum(counts.values())


def count_pairs(pairs: Sequence[Pair]) -> dict[str, int]:
    """Return the number of pairs of each sequence, sorted by name."""
    return dict(sorted(Counter(pair.sequence for pair in pairs).items()))


def count_differences(pairs: Sequence[Pair], expected: PairCounts) -> list[str]:
    """Return a message for each sequence whose number of pairs differs from the expected one."""
    if isinstance(expected, int):
        return [] if len(pairs) == expected else [f"{len(pairs)} instead of {expected}"]
    counts = count_pairs(pairs)
    return [
        f"{name} {counts.get(name, 0)} of {expected.get(name, 0)}"
        for name in sorted({*counts, *expected})
        if counts.get(name, 0) != expected.get(name, 0)
    ]


def _first(messages: list[str], shown: int = 3) -> str:
    more = f" and {len(messages) - shown} more sequences" if len(messages) > shown else ""
    return ", ".join(messages[:shown]) + more
