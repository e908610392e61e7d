"""`sapnet-evaluate`, `python -m sapnet.evaluate`: measure a checkpoint, or published weights, on a data set's tests."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.data.images import to_array, write_image
from sapnet.entry import entry_point
from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import checkpoint_kind
from sapnet.evaluation.contexts import context_id
from sapnet.evaluation.runner import Restore, as_table, evaluate_images, full_context, summarise, usual_device
from sapnet.evaluation.studies import chosen_study, report_study
from sapnet.models.adaptive import AdaptiveNetwork, use_window
from sapnet.models.weights import load_published
from sapnet.training.checkpoints import network_from_checkpoint

log = logging.getLogger(__name__)
OnImage = Callable[[Mapping[str, Any], Sequence[Tensor]], None]


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
    return measure(network, origin, data, folder, save_images=save_images)


def open_checkpoint(
    checkpoint: Path,
    sampler: str | None = None,
    budget: float | None = None,
    window: int | None = None,
    inference: str | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a checkpoint's network, ready to be evaluated, and what result lines say of it.

    Raises:
        UserError: As `evaluate`.
    """
    network, info = network_from_checkpoint(checkpoint)
    if (sampler, budget, inference) != (None, None, None):
        resample(network, sampler, budget, inference)
    use_window(network, window)
    origin = {
        "model": info.network,
        "checkpoint": info.sha256,
        "checkpoint_kind": checkpoint_kind(checkpoint),
        "generator_steps": info.generator_steps,
        "window": window,
    }
    if info.chosen_on_test:
        origin["validated_on"] = "test"
    if isinstance(network, AdaptiveNetwork):
        origin |= {"sampler": network.sampler, "budget": float(network.budget), "inference": network.inference}
    return network, origin


def evaluate_published(
    model: DictConfig,
    weights: Path,
    data: DictConfig,
    folder: Path,
    on_image: OnImage | None = None,
    name: str | None = None,
    save_images: bool = False,
) -> dict[str, Any]:
    """Evaluate a network with the weights that its authors published, as :func:`evaluate` does a checkpoint.

    Raises:
        UserError: The weights do not fit the network, or the data cannot be used.
    """
    network, origin = open_published(model, weights, name)
    return measure(network, origin, data, folder, on_image, save_images)


def open_published(
    model: DictConfig, weights: Path, name: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with its authors' weights, and what result lines say of it: `name`, or its class.

    Raises:
        UserError: The weights do not fit the network.
    """
    network = hydra.utils.instantiate(model).eval()
    return network, {"model": name or type(network).__name__, "published_weights": load_published(network, weights)}


def measure(
    network: nn.Module,
    origin: Mapping[str, Any],
    data: DictConfig,
    folder: Path,
    on_image: OnImage | None = None,
    save_images: bool = False,
) -> dict[str, Any]:
    """Restore a data set's test images and summarise.

    Args:
        network: In evaluation mode.
        origin: What every result line says of it.
        data: The config of the data.
        folder: Where ``results.jsonl`` is kept, and ``images``.
        on_image: Called with each item that is restored, and its stage images.
        save_images: Whether last stages are written as PNG; those that are there already are kept. Each context has a
            folder of its own, so that images of different networks or data do not mix.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, arguments = usual_device(), module.test_arguments
    context = {**origin, "data": module.name, "split": "test", **module.remarks}
    context |= {"data_arguments": arguments} if arguments else {}
    place = folder / "images" / context_id(full_context(context, device, module.protocol))

    def keep(item: Mapping[str, Any], images: Sequence[Tensor]) -> None:
        if save_images:
            write_image(place / f"{item['name']}.png", to_array(images[-1]))
        if on_image is not None:
            on_image(item, images)

    def lacks_image(name: str) -> bool:
        return not (place / f"{name}.png").is_file()

    lines = evaluate_images(
        as_restore(network.to(device)),
        module.whole_images("test"),
        device,
        folder / "results.jsonl",
        context,
        keep,
        module.protocol,
        lacks_image if save_images else None,
    )
    if save_images:
        log.info("images: %s", place)
    return summarise(lines)


def resample(
    network: nn.Module, sampler: str | None = None, budget: float | None = None, inference: str | None = None
) -> None:
    """Give a trained network another sampler, another budget, another inference, or all of these.

    Raises:
        UserError: It samples nothing, or these are impossible.
    """
    if not isinstance(network, AdaptiveNetwork):
        raise UserError("sampling.sampler, budget and inference: this checkpoint does not sample; leave them out.")
    if sampler is not None and sampler != network.sampler:
        network.use_sampler(sampler, inference=inference)
    elif inference is not None:
        network.use_inference(inference)
    if budget is not None:
        network.use_budget(budget)


def as_restore(network: nn.Module) -> Restore:
    """Return the network as an evaluation calls it: with the truth, which only controls look at."""
    return network if isinstance(network, AdaptiveNetwork) else lambda blurred, *truth: network(blurred)


def _check_folder_shared() -> None:
    # By default it is named after the time, which differs between processes.
    shared = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if shared and not any(word.startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra):
        raise UserError("several processes share an evaluation by its folder: add hydra.run.dir=FOLDER.")


def _check_choice(config: DictConfig) -> None:
    if config.weights is None:
        if config.checkpoint is None:
            raise UserError("checkpoint is not given: add checkpoint=PATH, a file that sapnet-train wrote.")
        if config.get("model") is not None:
            raise UserError("model goes with weights=FOLDER alone: a checkpoint carries its own network.")
        return
    if config.checkpoint is not None:
        raise UserError("weights and checkpoint are both given: choose one of them.")
    if config.get("model") is None:
        raise UserError("weights needs the network they belong to: add model=dmphn_1_2_4.")
    if "sampled" in config.model.keys():  # noqa: SIM118 - `in` alone would resolve it
        raise UserError("weights: none are published for this model; use model=dmphn_1_2_4 or model=dmphn_1_2_4_8.")
    if config.study or any(value is not None for value in config.sampling.values()):
        raise UserError("published networks sample nothing: leave out study and sampling.")
    if config.window is not None:
        raise UserError(f"window={config.window}: published networks have no attention to limit; leave it out.")


@entry_point("evaluate")
def main(config: DictConfig) -> float:
    """Evaluate and print the table; the return value is the mean PSNR."""
    _check_choice(config)
    _check_folder_shared()
    folder = Path(HydraConfig.get().runtime.output_dir)

    if config.weights is not None:
        name = f"model={HydraConfig.get().runtime.choices['model']}"
        weights, save = Path(config.weights), config.save_images
        summary = evaluate_published(config.model, weights, config.data, folder, save_images=save, name=name)
    else:
        choice = {**config.sampling, "window": config.window}
        summary = evaluate(Path(config.checkpoint), config.data, folder, config.save_images, **choice)
    log.info("results: %s\n%s", folder / "results.jsonl", as_table(summary))
    if config.study and os.environ.get("RANK", "0") == "0":
        network, _ = open_checkpoint(config.checkpoint, **choice)
        if not isinstance(network, AdaptiveNetwork):
            raise UserError("study: this checkpoint does not sample; leave it out.")
        report_study(chosen_study(config.study), network, config.data, folder)
    return summary["stage_psnr"][-1]


if __name__ == "__main__":
    main()
