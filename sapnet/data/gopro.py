"""GoPro (Nah et al., CVPR 2017): 2103 training and 1111 test pairs, 1280x720, from 33 sequences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sapnet.data.pairs import Pair, find_pairs
from sapnet.data.published import PublishedData
from sapnet.data.tiles import read_plan

_HEIGHT, _WIDTH = 720, 1280
_TRAIN = {
    **{"0372_07_00": 100, "0372_07_01": 75, "0374_11_00": 150, "0374_11_01": 80, "0374_11_02": 100, "0374_11_03": 48},
    **{"0378_13_00": 110, "0379_11_00": 100, "0380_11_00": 60, "0384_11_01": 100, "0384_11_02": 100, "0384_11_03": 100},
    **{"0384_11_04": 100, "0385_11_00": 100, "0386_11_00": 100, "0477_11_00": 80, "0857_11_00": 100, "0868_11_01": 100},
    **{"0868_11_02": 100, "0871_11_01": 100, "0881_11_00": 100, "0884_11_00": 100},
}
_TEST = {
    **{"0384_11_00": 100, "0384_11_05": 100, "0385_11_01": 100, "0396_11_00": 100, "0410_11_00": 134},
    **{"0854_11_00": 100, "0862_11_00": 77, "0868_11_00": 100, "0869_11_00": 100, "0871_11_00": 100, "0881_11_01": 100},
}


class GoProData(PublishedData):
    """GoPro in the layout of its archive: `root/{train,test}/GOPRxxxx_yy_zz/{blur,blur_gamma,sharp}/NNNNNN.png`.

    The archive contains two inputs for each target: `blur` is the mean of the stored frames, `blur_gamma` the mean in
    linear light. Nearly all published results are on `blur`, and results on the two are not comparable. If both exist,
    `data.blur` must select one, and all results contain the selection.

    `root` may also be a folder of tiles cut by `python -m sapnet tiles`; the expected numbers are then those of the
    tiles.

    Args:
        root: The folder `GOPRO_Large`.
        blur: `blur` or `blur_gamma`.
        options: Arguments of `PublishedData`.
    """

    title = "GoPro"
    pair_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        split: {f"GOPR{name}": count for name, count in counts.items()}
        for split, counts in (("train", _TRAIN), ("test", _TEST))
    }

    def __init__(self, root: str | Path | None = None, blur: str | None = None, **options: Any):
        super().__init__(root, **options)
        self.blur = blur
        self._kind: dict[str, str] = {}

    def locate(self, split: str) -> list[Pair]:
        pairs = find_pairs(self.folder(), split, self.blur)
        self._kind["blur"] = pairs[0].blurred.parent.name
        return pairs

    def expected(self, split: str) -> dict[str, int]:
        """Return the published numbers, multiplied by the tiles of an image if the split was cut into tiles."""
        plan = read_plan(self.folder())
        times = plan.tiles(_HEIGHT, _WIDTH) if plan and split in plan.splits else 1
        return {name: count * times for name, count in self.pair_counts[split].items()}

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks of `PublishedData`, and the kind of blur."""
        return super().remarks | self._kind
