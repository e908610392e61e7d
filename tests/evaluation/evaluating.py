"""Evaluates made-up images in a process of its own: `python evaluating.py RESULTS COUNT [HOLD]`.

At the image called HOLD it makes a file `held` beside the results and stays there, with its claim, to be killed. At the
end it prints the names that it restored itself, and the summary of all.
"""

import json
import sys
import time
from pathlib import Path

import torch

from sapnet.evaluation.runner import evaluate_images, summarise


def items(count: int) -> list[dict]:
    """Sharp noise, and as blurred image the noise averaged over three columns."""
    sharp = torch.rand(count, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(sharp, (1, 3), 1, (0, 1))
    return [{"name": f"{i:02d}", "blurred": blurred[i], "sharp": sharp[i]} for i in range(count)]


def restore(blurred: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
    """A slow network of two stages."""
    time.sleep(0.05)
    return [blurred, blurred * 0.9]


def main(path: Path, count: int, hold: str = "") -> None:
    made = []

    def on_image(item: dict, _: object) -> None:
        made.append(item["name"])

    def network(blurred: torch.Tensor, sharp: torch.Tensor) -> list[torch.Tensor]:
        if hold and torch.equal(blurred[0], items(count)[int(hold)]["blurred"]):
            (path.parent / "held").touch()
            time.sleep(120)
        return restore(blurred, sharp)

    lines = evaluate_images(network, items(count), torch.device("cpu"), path, {"data": "made up"}, on_image)
    print(json.dumps({"made": made, "names": [line["name"] for line in lines], "images": summarise(lines)["images"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
