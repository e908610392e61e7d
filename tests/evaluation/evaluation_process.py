"""Script that evaluates synthetic images: `python evaluation_process.py RESULTS COUNT [HOLD]`.

At the image named HOLD it creates a file `held` beside the results and waits, holding its claim, to be killed. At the
end it prints the names of the images that it restored and the summary of all images.
"""

import json
import sys
import time
from pathlib import Path

import torch

from sapnet.evaluation.runner import evaluate_images
from sapnet.evaluation.summary import summarise


def items(count: int) -> list[dict]:
    """Return noise as sharp images and its mean over three columns as blurred images."""
    sharp = torch.rand(count, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(sharp, (1, 3), 1, (0, 1))
    return [{"name": f"{i:02d}", "blurred": blurred[i], "sharp": sharp[i]} for i in range(count)]


def restore(blurred: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
    """Slow network of two stages."""
    time.sleep(0.05)
    return [blurred, blurred * 0.9]


def main(path: Path, count: int, hold: str = "") -> None:
    restored = []

    def on_image(item: dict, _: object) -> None:
        restored.append(item["name"])

    def network(blurred: torch.Tensor, sharp: torch.Tensor) -> list[torch.Tensor]:
        if hold and torch.equal(blurred[0], items(count)[int(hold)]["blurred"]):
            (path.parent / "held").touch()
            time.sleep(120)
        return restore(blurred, sharp)

    lines = evaluate_images(network, items(count), torch.device("cpu"), path, {"data": "synthetic"}, on_image)
    print(
        json.dumps(
            {"restored": restored, "names": [line["name"] for line in lines], "images": summarise(lines)["images"]}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
