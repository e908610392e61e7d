"""The compiled kernel equals the plain PyTorch filter in float64."""

import subprocess
import sys

import pytest
import torch

from sapnet.ops import cpu, reference
from sapnet.ops.build import BuildError
from tests.ops.cases import KINDS, distance, draw

try:
    cpu.load()
except BuildError as error:
    pytest.skip(f"the kernel cannot be built here: {error}", allow_module_level=True)

SHAPES = [
    {"h": 1, "w": 1, "c": 1, "o": 1, "size": 1, "points": "all"},
    {"h": 1, "w": 1, "c": 17, "o": 3, "size": 5, "points": "all"},
    {"b": 3, "h": 7, "w": 5, "c": 3, "o": 3, "size": 5},
    {"b": 1, "h": 9, "w": 11, "c": 17, "o": 33, "size": 3, "points": "shuffled"},
    {"b": 3, "h": 8, "w": 9, "c": 32, "o": 16, "size": 3, "points": "all"},
    *({"b": 1, "h": 5, "w": 6, "c": c, "o": c + 5, "size": 3} for c in (8, 16, 24, 40, 48, 64)),
    {"b": 1, "h": 12, "w": 12, "c": 70, "o": 53, "size": 5},
    {"b": 2, "h": 6, "w": 7, "c": 24, "size": 5, "depthwise": True},
    {"b": 1, "h": 10, "w": 9, "c": 17, "size": 3, "depthwise": True, "points": "shuffled"},
]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
@pytest.mark.parametrize("offsets", [*KINDS, None])
@pytest.mark.parametrize("kernel", [True, False])
def test_output_and_gradients_agree(shape, offsets, kernel, threads):
    case = draw(**shape, offsets=offsets, kernel=kernel, seed=1)
    exact = reference.forward(*case.double())
    grad = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2))
    needed = [True, True, kernel, offsets is not None]
    expected = reference.backward(grad.double(), *case.double(), needed)
    results = [("output", cpu.forward(*case), exact)]
    results += list(
        zip(("canvas", "weight", "kernel", "offsets"), cpu.backward(grad, *case, needed), expected, strict=True)
    )
    for name, actual, expected in results:
        assert actual.shape == expected.shape
        # If all taps are outside, both are exactly zero.
        assert distance(actual, expected) < 1e-5 if expected.any() else not actual.any(), name
    assert distance(cpu.forward(*case.double()), exact) < 1e-13 if exact.any() else True


@pytest.mark.parametrize("points", ["some", "shuffled"])
def test_numbers_of_threads_agree_and_are_reproducible(points):
    case, before = draw(b=3, h=20, w=21, c=8, o=8, points=points), torch.get_num_threads()
    grad = torch.randn(3, case.points.shape[1], 8)
    runs = {}
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results = [cpu.forward(*case), *cpu.backward(grad, *case, [True] * 4)]
            for actual, first in zip(results, runs.setdefault(threads, results), strict=True):
                assert torch.equal(actual, first), "results differ between runs"
    finally:
        torch.set_num_threads(before)
    for threads in (2, 3):
        for actual, one in zip(runs[threads], runs[1], strict=True):
            assert distance(actual, one) < 1e-6


def test_exceeding_the_spill_limit_uses_fewer_workers_with_the_same_gradient():
    """With points in random order on a canvas of 40 MiB, each worker would need a copy of the whole gradient."""
    canvas = torch.randn(1, 1024, 640, 16)
    points = torch.randperm(1024 * 640)[:500][None]
    grad, before = torch.randn(1, 500, 16), torch.get_num_threads()
    args = (grad, canvas, torch.randn(16, 16, 3, 3), torch.ones(1, 500, 9), torch.zeros(1, 500, 9, 2), points)
    try:
        torch.set_num_threads(4)
        many = cpu.backward(*args, [True, False, False, False])[0]
        torch.set_num_threads(1)
        torch.testing.assert_close(many, cpu.backward(*args, [True, False, False, False])[0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_has_one_openmp_runtime():
    """A second runtime would start its own threads and compete with torch for the cores."""
    program = (
        "import torch; from sapnet.ops import cpu; cpu.forward(torch.randn(1, 99, 9, 8), torch.randn(8, 8, 3, 3), "
        "None, None, None); print(*{l.split()[-1] for l in open('/proc/self/maps') if 'omp' in l.split('/')[-1]})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) <= 1, done.stdout
