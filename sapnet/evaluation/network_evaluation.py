"""Evaluation of a checkpoint or of published weights on the test images of a data set."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.data.images import to_array, write_image
from sapnet.evaluation.networks import as_restore, open_checkpoint, open_published
from sapnet.evaluation.result_contexts import context_id
from sapnet.evaluation.runner import evaluate_images, full_context, usual_device
from sapnet.evaluation.summary import summarise

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
    ema: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint on a data set's test images.

    Lines are appended to `folder/results.jsonl`. Images that have a line of the same checkpoint and data there are not
    restored again. Processes with the same folder share the images, and each returns the summary of all images.

    Args:
        checkpoint: Path of the checkpoint.
        data: Config of the data.
        folder: Folder of the results.
        save_images: As in `measure`.
        sampler: As in `open_checkpoint`.
        budget: As in `open_checkpoint`.
        window: As in `open_checkpoint`.
        inference: As in `open_checkpoint`.
        ema: As in `open_checkpoint`.

    Raises:
        UserError: The checkpoint or the data cannot be used, the network does not sample, or it does not support the
            window.
    """
    network, origin = open_checkpoint(checkpoint, sampler, budget, window, inference, ema)
    return measure(network, origin, data, folder, save_images)


def evaluate_published(
    model: DictConfig,
    weights: Path,
    data: DictConfig,
    folder: Path,
    name: str | None = None,
    save_images: bool = False,
) -> dict[str, Any]:
    """Evaluate a network with the weights published by its authors, as `evaluate` evaluates a checkpoint.

    Args:
        model: Config of the network.
        weights: Folder or file of the weights.
        data: Config of the data.
        folder: Folder of the results.
        name: Name of the network in result lines; None for its class.
        save_images: As in `measure`.

    Raises:
        UserError: The weights do not fit the network, or the data cannot be used.
    """
    network, origin = open_published(model, weights, name)
    return measure(network, origin, data, folder, save_images)


def measure(
    network: nn.Module, origin: Mapping[str, Any], data: DictConfig, folder: Path, save_images: bool = False
) -> dict[str, Any]:
    """Evaluate a network on a data set's test images and return the summary, with the network's name and parameters.

    Args:
        network: Network in evaluation mode.
        origin: Entries of every result line that describe the network.
        data: Config of the data.
        folder: Folder of `results.jsonl` and `images`.
        save_images: Whether to write the outputs of the last stage as PNG, one folder per context. Existing images are
            kept.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, arguments = usual_device(), module.test_arguments
    context = {**origin, "data": module.name, "split": "test", **module.remarks}
    context |= {"data_arguments": arguments} if arguments else {}
    image_folder = folder / "images" / context_id(full_context(context, device, module.protocol))

    def save(item: Mapping[str, Any], images: Sequence[Tensor]) -> None:
        write_image(image_folder / f"{item['name']}.png", to_array(images[-1]))

    def image_missing(name: str) -> bool:
        return not (image_folder / f"{name}.png").is_file()

    lines = evaluate_images(
        as_restore(network.to(device)),
        module.whole_images("test"),
        device,
        folder / "results.jsonl",
        context,
        save if save_images else None,
        module.protocol,
        image_missing if save_images else None,
    )
    if save_images:
        log.info("images: %s", image_folder)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"model": origin["model"], "parameters": parameters, **summarise(lines)}
