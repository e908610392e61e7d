"""`sapnet-evaluate`, `python -m sapnet.evaluate`: measure a checkpoint, or published weights, on a data set's tests."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.data.images import to_array, write_image
from sapnet.entry import entry_point
from sapnet.errors import UserError
from sapnet.evaluation import point_picture, point_study, point_values, policy_study
from sapnet.evaluation.runner import Restore, as_table, evaluate_images, summarise, usual_device
from sapnet.files import write_atomically
from sapnet.models.adaptive import AdaptiveNetwork, use_window
from sapnet.models.weights import load_published
from sapnet.training.checkpoints import network_from_checkpoint
from sapnet.training.noise import signal_to_noise

log = logging.getLogger(__name__)
OnImage = Callable[[Mapping[str, Any], Sequence[Tensor]], None]
#: What `study` may be; false studies nothing.
STUDIES = ("map", "policy", "points")
#: Images, and their largest side in pixels, of the batch whose policy gradient is drawn many times.
NOISE_IMAGES, NOISE_SIDE = 4, 128


def evaluate(
    checkpoint: Path,
    data: DictConfig,
    folder: Path,
    on_image: OnImage | None = None,
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
    return measure(network, origin, data, folder, on_image)


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
        "model": info.model["_target_"].rsplit(".", 1)[-1],
        "checkpoint": info.sha256,
        "generator_steps": info.generator_steps,
        "window": window,
    }
    if info.chosen_on_test:
        origin["validated_on"] = "test"
    if isinstance(network, AdaptiveNetwork):
        origin |= {"sampler": network.sampler, "budget": network.budget, "inference": network.inference}
    return network, origin


def evaluate_published(
    model: DictConfig, weights: Path, data: DictConfig, folder: Path, on_image: OnImage | None = None
) -> dict[str, Any]:
    """Evaluate a network with the weights that its authors published, as :func:`evaluate` does a checkpoint.

    Raises:
        UserError: The weights do not fit the network, or the data cannot be used.
    """
    network, origin = open_published(model, weights)
    return measure(network, origin, data, folder, on_image)


def open_published(model: DictConfig, weights: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with its authors' weights, and what result lines say of it.

    Raises:
        UserError: The weights do not fit the network.
    """
    network = hydra.utils.instantiate(model).eval()
    return network, {"model": type(network).__name__, "published_weights": load_published(network, weights)}


def measure(
    network: nn.Module, origin: Mapping[str, Any], data: DictConfig, folder: Path, on_image: OnImage | None = None
) -> dict[str, Any]:
    """Restore a data set's test images and summarise; every line repeats where the network comes from."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device = usual_device()
    context = {**origin, "data": module.name, "split": "test", **module.remarks}
    items, path = module.whole_images("test"), folder / "results.jsonl"
    restore = as_restore(network.to(device))
    return summarise(evaluate_images(restore, items, device, path, context, on_image, module.protocol))


def study_policy(
    network: AdaptiveNetwork, data: DictConfig, folder: Path, controls: Sequence[str] = policy_study.CONTROLS
) -> dict[str, Any]:
    """Study a network that samples on a data set's test images; the result goes to ``folder/policy.json`` too."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device = usual_device()
    found = policy_study.study(network.to(device), module.whole_images("test"), device, controls)
    write_atomically(folder / "policy.json", (json.dumps(found, indent=2) + "\n").encode())
    return found


def study_points(network: AdaptiveNetwork, data: DictConfig, folder: Path) -> dict[str, Any]:
    """Study what a network's points are worth on a data set's test images.

    The result goes to ``folder/points.json`` too, and a picture to ``folder/points.png``.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, items = usual_device(), module.whole_images("test")
    network.to(device)
    found, maps, skipped = point_study.study(network, items, device), [], []
    if getattr(network.generator, "takes_gates", False):
        found["values"], maps = point_values.study_values(network, items, device)
    else:
        skipped.append(f"Values of points: {type(network.generator).__name__} does not take gates.")
    found["signal_to_noise"], more = signal_to_noise(network, _noise_batch(items, device))
    found["skipped"] = skipped + more
    write_image(folder / "points.png", point_picture.draw(network, items, device, maps))
    write_atomically(folder / "points.json", (json.dumps(found, indent=2) + "\n").encode())
    return found


def _noise_batch(items: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Tensor]:
    # The middles of the first images, as large as all of them allow.
    first = [point_values.centre(items[i], NOISE_SIDE) for i in range(min(NOISE_IMAGES, len(items)))]
    side = min(min(item["sharp"].shape[-2:]) for item in first)
    first = [point_values.centre(item, side) for item in first]
    known = [key for key in ("blurred", "sharp", "extent") if all(key in item for item in first)]
    return {key: torch.stack([item[key] for item in first]).to(device) for key in known}


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


def chosen_study(value: bool | str | None) -> str | None:
    """Return the study that ``study=value`` asks for; true is the one of the policy.

    Raises:
        UserError: There is none of that name.
    """
    if value in (None, False):
        return None
    if value is not True and value not in STUDIES:
        raise UserError(f"study={value} is unknown: use {', '.join(STUDIES)} or false.")
    return "policy" if value is True else str(value)


def _check_choice(config: DictConfig) -> None:
    chosen_study(config.study)
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


def report_study(kind: str, network: AdaptiveNetwork, data: DictConfig, folder: Path) -> None:
    """Carry out a study and log its tables."""
    if kind == "points":
        text, path = point_study.as_markdown(study_points(network, data, folder)), folder / "points.json"
    else:
        controls = policy_study.CONTROLS if kind == "policy" else ()
        text = policy_study.as_markdown(study_policy(network, data, folder, controls), network.sampler)
        path = folder / "policy.json"
    log.info("%s: %s\n%s", kind, path, text)


@entry_point("evaluate")
def main(config: DictConfig) -> float:
    """Evaluate and print the table; the return value is the mean PSNR."""
    _check_choice(config)
    _check_folder_shared()
    folder = Path(HydraConfig.get().runtime.output_dir)

    def save(item: Mapping[str, Any], images: Sequence[Tensor]) -> None:
        write_image(folder / "images" / f"{item['name']}.png", to_array(images[-1]))

    on_image = save if config.save_images else None
    if config.weights is not None:
        summary = evaluate_published(config.model, Path(config.weights), config.data, folder, on_image)
    else:
        choice = {**config.sampling, "window": config.window}
        summary = evaluate(Path(config.checkpoint), config.data, folder, on_image, **choice)
    log.info("results: %s\n%s", folder / "results.jsonl", as_table(summary))
    if config.study and os.environ.get("RANK", "0") == "0":
        network, _ = open_checkpoint(config.checkpoint, **choice)
        if not isinstance(network, AdaptiveNetwork):
            raise UserError("study: this checkpoint does not sample; leave it out.")
        report_study(chosen_study(config.study), network, config.data, folder)
    return summary["stage_psnr"][-1]


if __name__ == "__main__":
    main()
