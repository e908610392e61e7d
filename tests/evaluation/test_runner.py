"""Result lines, continuation of an evaluation, and times."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sapnet.evaluation import runner
from sapnet.evaluation.results_file import append_result, read_results
from sapnet.evaluation.runner import evaluate_images
from sapnet.evaluation.summary import as_table, summarise

CPU = torch.device("cpu")


def items(count: int = 3, height: int = 24, width: int = 40) -> list[dict]:
    sharp = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return [{"name": f"{i}", "blurred": (sharp[i] + 0.1).clamp(0, 1), "sharp": sharp[i]} for i in range(count)]


class Network:
    """Network of two stages that records the image sizes and is slow at the first call."""

    def __init__(self):
        self.sizes = []

    def __call__(self, blurred: torch.Tensor, sharp: torch.Tensor) -> list[torch.Tensor]:
        assert blurred.shape == sharp.shape
        time.sleep(0 if self.sizes else 0.5)
        self.sizes.append(tuple(blurred.shape[-2:]))
        return [blurred, blurred * 0.95]


def test_line_contains_conditions_and_excludes_the_first_call_from_times(tmp_path: Path) -> None:
    network = Network()
    lines = evaluate_images(network, items(3, 140, 150), CPU, tmp_path / "results.jsonl", {"data": "synthetic"})
    assert network.sizes == [(128, 128)] + [(140, 150)] * 3, "the warm-up restores a crop"
    for line in lines:
        assert line["seconds"] < 0.25 and "seconds_unsynchronised" not in line, "only on GPUs"
        assert (line["height"], line["width"], line["dtype"], line["device"]) == (140, 150, "float32", "cpu")
        assert line["threads"] == torch.get_num_threads() and line["torch"] == torch.__version__ and line["device_name"]
    table = as_table(summarise(lines))
    assert "s per image (median; " in table and "float32, 150x140" in table and "synchronis" not in table


def test_evaluation_continues_with_another_number_of_threads(tmp_path: Path) -> None:
    path, network, restored = tmp_path / "results.jsonl", Network(), []
    evaluate_images(network, items(2), CPU, path, {"data": "synthetic", "budget": (1, 2)})
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        context = {"data": "synthetic", "budget": (1, 2)}
        lines = evaluate_images(network, items(), CPU, path, context, lambda item, _: restored.append(item["name"]))
    finally:
        torch.set_num_threads(threads)
    assert restored == ["2"] and [line["name"] for line in lines] == ["0", "1", "2"] and len(read_results(path)) == 3
    assert f"{threads} threads, {threads + 1} threads" in as_table(summarise(lines))
    evaluate_images(network, items(), CPU, path, {"data": "other"})
    assert len(read_results(path)) == 6, "lines of other data are ignored"


def test_repeated_evaluation_reads_its_results_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, network, again = tmp_path / "results.jsonl", Network(), Network()
    with caplog.at_level("INFO"):
        first = evaluate_images(network, items(), CPU, path, {"data": "synthetic", "checkpoint": "c"})
        assert "nothing is evaluated again" not in caplog.text
        assert evaluate_images(again, items(), CPU, path, {"data": "synthetic", "checkpoint": "c"}) == first
    assert again.sizes == [] and len(read_results(path)) == 3
    assert caplog.text.count("nothing is evaluated again") == 1
    evaluate_images(again, items(), CPU, path, {"data": "synthetic", "checkpoint": "d"})
    assert len(again.sizes) == 4 and len(read_results(path)) == 6


@pytest.mark.parametrize("stages", [1, 2])
def test_summary_has_the_means_over_images(stages: int) -> None:
    rng = np.random.default_rng(0)
    figures = {"input_psnr": rng.normal(28, 3, 40), "input_ssim": rng.random(40)}
    figures |= {"stage_psnr": rng.normal(30, 3, (40, stages)), "stage_ssim": rng.random((40, stages))}
    conditions = {"device": "cpu", "device_name": "x", "threads": 2, "dtype": "float32", "width": 4, "height": 4}
    lines = [
        {key: values[i].tolist() for key, values in figures.items()} | conditions | {"seconds": 1.0, "protocol": "p"}
        for i in range(40)
    ]
    summary = summarise(lines)
    assert {key: summary[key] for key in figures} == {key: v.mean(axis=0).tolist() for key, v in figures.items()}
    assert f"stage {stages}" in as_table(summary)
    lines[3]["stage_psnr"][-1] = float("inf")
    summary = summarise(lines)
    assert summary["images"] == 39 and summary["images_equal_to_truth"] == 1
    assert summary["input_psnr"] == np.delete(figures["input_psnr"], 3).mean()


def test_missing_images_are_restored_without_new_lines(tmp_path: Path) -> None:
    path, saved = tmp_path / "results.jsonl", {}

    def save(item: dict, images: list[torch.Tensor]) -> None:
        saved[item["name"]] = images[-1]

    evaluate_images(Network(), items(), CPU, path, {})
    before, network = path.read_bytes(), Network()
    saved["1"] = "existing"
    evaluate_images(network, items(), CPU, path, {}, save, image_missing=lambda name: name not in saved)
    assert path.read_bytes() == before and saved["1"] == "existing" and len(network.sizes) == 2
    assert torch.equal(saved["2"], items()[2]["blurred"] * 0.95)
    evaluate_images(network, items(), CPU, path, {}, save)
    assert len(network.sizes) == 2, "images with lines are restored only if image_missing is passed"


def test_evaluated_images_are_not_read(tmp_path: Path) -> None:
    class Files(list):
        read = 0

        def name(self, index: int) -> str:
            return f"{index}"

        def __getitem__(self, index: int) -> dict:
            Files.read += 1
            return super().__getitem__(index)

    for _ in range(2):
        evaluate_images(Network(), Files(items()), CPU, tmp_path / "results.jsonl", {})
    assert Files.read == 3


def test_line_without_inference_counts_as_top(tmp_path: Path) -> None:
    path, network = tmp_path / "results.jsonl", Network()
    for context in ({}, {"inference": "top"}, {"inference": "dither"}, {"inference": "dither"}):
        evaluate_images(network, items(1), CPU, path, context)
    assert [line.get("inference") for line in read_results(path)] == [None, "dither"]


def test_extent_is_passed_to_the_network_if_known(tmp_path: Path) -> None:
    shapes = []

    def restore(blurred: torch.Tensor, *truth: torch.Tensor) -> list[torch.Tensor]:
        shapes.append([tuple(image.shape) for image in truth])
        return [blurred]

    known = [item | {"extent": torch.rand(1, 24, 40)} for item in items(1)]
    evaluate_images(restore, known, CPU, tmp_path / "known.jsonl", {})
    assert shapes[-1] == [(1, 3, 24, 40), (1, 1, 24, 40)]
    evaluate_images(restore, items(1), CPU, tmp_path / "unknown.jsonl", {})
    assert shapes[-1] == [(1, 3, 24, 40)]


def test_window_belongs_to_the_context_and_defaults_to_whole_images(tmp_path: Path) -> None:
    path, network = tmp_path / "results.jsonl", Network()
    evaluate_images(network, items(1), CPU, path, {"data": "synthetic"})
    evaluate_images(network, items(1), CPU, path, {"data": "synthetic", "window": None})
    assert len(read_results(path)) == 1, "a line without window counts as whole images"
    for _ in range(2):
        evaluate_images(network, items(1), CPU, path, {"data": "synthetic", "window": 32})
        assert [line.get("window") for line in read_results(path)] == [None, 32]
    path.write_text(path.read_text().splitlines()[1] + "\n")
    evaluate_images(network, items(1), CPU, path, {"data": "synthetic", "window": None})
    assert [line["window"] for line in read_results(path)] == [32, None]


def test_lines_of_another_protocol_device_or_version_are_ignored(tmp_path: Path) -> None:
    path, network = tmp_path / "results.jsonl", Network()
    line = evaluate_images(network, items(1), CPU, path, {"data": "synthetic"})[0]
    for other in ({"protocol": "another"}, {"device": "cuda"}, {"torch": "1.0"}, {"sapnet": "9.9"}):
        path.unlink()
        append_result(path, {**line, **other})
        evaluate_images(network, items(1), CPU, path, {"data": "synthetic"})
        assert len(read_results(path)) == 2


def test_error_releases_the_claim(tmp_path: Path) -> None:
    def broken(*_: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("broken")

    for _ in range(2):  # an unreleased claim would block the second
        with pytest.raises(RuntimeError, match="broken"):
            evaluate_images(broken, items(), CPU, tmp_path / "results.jsonl", {})


def test_device_is_the_gpu_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    for rank, index in (("0", 0), ("1", 1), ("3", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert runner.usual_device() == torch.device("cuda", index) == devices[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_synchronised_time_on_a_gpu_is_longer(tmp_path: Path) -> None:
    weight = torch.rand(3, 3, 15, 15, device="cuda") / 700

    def network(blurred: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
        for _ in range(20):
            blurred = torch.nn.functional.conv2d(blurred, weight, padding=7)
        return [blurred]

    lines = evaluate_images(network, items(3, 720, 1280), torch.device("cuda"), tmp_path / "results.jsonl", {})
    for line in lines:
        keys = [key for key in line if key.startswith("seconds")]
        assert keys == ["seconds", "seconds_unsynchronised"] and line["seconds"] > line["seconds_unsynchronised"]
        assert "tf32_convolutions" in line and line["device"] == "cuda"
    assert "without synchronising" in as_table(summarise(lines))
