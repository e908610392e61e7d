"""Measure a checkpoint, or published weights, on the test images of a data set."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.data.images import to_array, write_image
from sapnet.evaluation.contexts import context_id
from sapnet.evaluation.networks import as_restore, open_checkpoint, open_published
from sapnet.evaluation.runner import evaluate_images, full_context, summarise, usual_device

log = logging.getLogger(__name__)


def evaluate(
    checkpoint: Path,
    data: DictConfig,
    folder: Path,
    save_images: bool = False,
    sampler: str | None = None,
    budget: float | None = None,
    window: int | None = None,
    inference: str | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint on a data set's test images; a network that samples may be given other ways to sample.

    Lines go to ``folder/results.jsonl``; images that stand there already, under the same checkpoint and data, are not
    restored again. Processes with one folder share the images, and each returns the summary of all.

    Raises:
        UserError: The checkpoint or the data cannot be used, the network samples nothing, or it takes no such window.
    """
    network, origin = open_checkpoint(checkpoint, sampler, budget, window, inference)
    return measure(network, origin, data, folder, save_images)


def evaluate_published(
    model: DictConfig,
    weights: Path,
    data: DictConfig,
    folder: Path,
    name: str | None = None,
    save_images: bool = False,
) -> dict[str, Any]:
    """Evaluate a network with the weights that its authors published, as :func:`evaluate` does a checkpoint.

    Raises:
        UserError: The weights do not fit the network, or the data cannot be used.
    """
    network, origin = open_published(model, weights, name)
    return measure(network, origin, data, folder, save_images)


def measure(
    network: nn.Module, origin: Mapping[str, Any], data: DictConfig, folder: Path, save_images: bool = False
) -> dict[str, Any]:
    """Restore a data set's test images and summarise.

    Args:
        network: In evaluation mode.
        origin: What every result line says of it.
        data: The config of the data.
        folder: Where ``results.jsonl`` is kept, and ``images``.
        save_images: Whether last stages are written as PNG; those that are there already are kept. Each context has a
            folder of its own, so that images of different networks or data do not mix.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, arguments = usual_device(), module.test_arguments
    context = {**origin, "data": module.name, "split": "test", **module.remarks}
    context |= {"data_arguments": arguments} if arguments else {}
    place = folder / "images" / context_id(full_context(context, device, module.protocol))

    def save(item: Mapping[str, Any], images: Sequence[Tensor]) -> None:
        write_image(place / f"{item['name']}.png", to_array(images[-1]))

    def lacks_image(name: str) -> bool:
        return not (place / f"{name}.png").is_file()

    lines = evaluate_images(
        as_restore(network.to(device)),
        module.whole_images("test"),
        device,
        folder / "results.jsonl",
        context,
        save if save_images else None,
        module.protocol,
        lacks_image if save_images else None,
    )
    if save_images:
        log.info("images: %s", place)
    return summarise(lines)
