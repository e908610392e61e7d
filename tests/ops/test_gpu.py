"""The Triton kernels equal the plain PyTorch filter in float64; without a GPU they run in Triton's interpreter."""

import warnings

import pytest
import torch

from sapnet.errors import UserError
from sapnet.ops import adaptive_filter, backend, chunks, reference, self_check
from tests.ops.cases import KINDS, Case, distance, draw
from tests.ops.conftest import import_triton_backend

gpu = import_triton_backend()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [
    {"h": 1, "w": 1, "c": 1, "o": 1, "size": 1, "points": "all"},
    {"b": 3, "h": 7, "w": 5, "c": 3, "o": 3, "size": 5},
    {"b": 1, "h": 5, "w": 6, "c": 17, "o": 33, "size": 3, "points": "shuffled"},
    {"b": 2, "h": 4, "w": 5, "c": 8, "size": 3, "depthwise": True, "points": "all"},
]


def on_device(case: Case) -> Case:
    return Case(*(None if tensor is None else tensor.to(DEVICE) for tensor in case))


def differences(case: Case, needed: list[bool]) -> dict[str, float]:
    """Return the relative differences of the output and the gradients from those in float64."""
    exact = reference.forward(*case.double())
    grad = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2)).to(case.canvas.dtype)
    expected = [exact, *reference.backward(grad.double(), *case.double(), needed)]
    moved = on_device(case)
    results = [gpu.forward(*moved), *gpu.backward(grad.to(DEVICE), *moved, needed)]
    assert [x.shape for x in results] == [x.shape for x in expected]
    # If all taps are outside, both are exactly zero.
    pairs = zip(("output", *Case._fields[:4]), results, expected, strict=True)
    return {n: distance(a.cpu(), e) if e.any() else float(a.abs().sum()) for n, a, e in pairs}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
@pytest.mark.parametrize(("offsets", "kernel"), [*((kind, True) for kind in KINDS), (None, True), ("random", False)])
def test_output_and_gradients_agree(shape, offsets, kernel):
    case = draw(**shape, offsets=offsets, kernel=kernel, seed=1)
    assert max(differences(case, [True, True, kernel, offsets is not None]).values()) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float64, 1e-13)])
def test_features_may_have_half_precision(dtype, bound):
    """Positions stay in float32: far from the origin half precision could not tell neighbouring pixels apart."""
    case = draw(b=1, h=2, w=600, c=4, offsets="random", seed=3)
    case = case._replace(canvas=case.canvas.to(dtype), weight=case.weight.to(dtype), points=case.points[:, -40:])
    case = case._replace(kernel=case.kernel[:, -40:], offsets=case.offsets[:, -40:])
    if dtype == torch.float64:
        case = case.double()
    assert max(differences(case, [True] * 4).values()) < bound
    gradients = gpu.backward(on_device(case).canvas.new_ones(1, 40, 4), *on_device(case), [True] * 4)
    assert [g.dtype for g in gradients] == [x.dtype for x in case[:4]]


@pytest.mark.parametrize("depthwise", [False, True])
def test_result_does_not_depend_on_the_chunk_size(monkeypatch, depthwise):
    case = on_device(draw(b=3, h=4, w=4, depthwise=depthwise).double())
    whole = gpu.forward(*case)
    grad = torch.randn_like(whole)
    gradients = gpu.backward(grad, *case, [True] * 4)
    monkeypatch.setattr(gpu, "chunk_elements", lambda canvas: 5 * 9 * 3)
    torch.testing.assert_close(gpu.forward(*case), whole)
    torch.testing.assert_close(gpu.backward(grad, *case, [True] * 4), gradients)


def test_no_points_and_gradients_that_are_not_needed():
    case = on_device(draw())
    empty = case._replace(points=case.points[:, :0], kernel=case.kernel[:, :0], offsets=case.offsets[:, :0])
    assert gpu.forward(*empty).shape == (2, 0, 4)
    gradients = gpu.backward(case.canvas.new_zeros(2, 0, 4), *empty, [True] * 4)
    assert not gradients[0].any() and not gradients[1].any()
    for i in range(4):
        needed = [j == i for j in range(4)]
        shapes = [x.numel() for x in gpu.backward(case.canvas.new_ones(2, case.points.shape[1], 4), *case, needed)]
        assert [n > 0 for n in shapes] == needed


def test_deterministic_mode_computes_the_canvas_gradient_without_atomics(monkeypatch):
    case, needed = on_device(draw(c=5)), [True, True, True, True]
    grad = case.canvas.new_ones(2, case.points.shape[1], 4)
    expected = gpu.backward(grad, *case, needed)
    launched, launch = [], gpu._Inputs.launch

    def record(self, kernel, *arguments, **flags):
        launched.append(kernel)
        launch(self, kernel, *arguments, **flags)

    monkeypatch.setattr(gpu._Inputs, "launch", record)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = gpu.backward(grad, *case, needed)
    finally:
        torch.use_deterministic_algorithms(False)
    assert gpu.scatter_kernel not in launched and gpu.reduce_kernel in launched
    torch.testing.assert_close(gradients, expected)


# Selection of the backend


@pytest.fixture
def selection(monkeypatch):
    """Select anew, as on a machine with a CUDA device whose kernels run in the interpreter."""
    monkeypatch.delenv("SAPNET_OPS", raising=False)
    difference = self_check.difference
    monkeypatch.setattr(self_check, "difference", lambda module, device: difference(module, DEVICE))
    backend.get_backend.cache_clear()
    yield
    backend.get_backend.cache_clear()


@pytest.mark.usefixtures("selection")
def test_kernels_are_used_after_the_self_check():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend.get_backend("cuda") is gpu and backend.supports_half_precision("cuda")
    assert not backend.supports_half_precision("cpu")


@pytest.mark.usefixtures("selection")
def test_wrong_kernels_are_replaced_with_one_warning(monkeypatch):
    monkeypatch.setattr(gpu, "forward", lambda *inputs: 2 * reference.forward(*inputs))
    with pytest.warns(UserWarning, match="the output differs from plain PyTorch by 1.0e\\+00"):
        assert backend.get_backend("cuda") is reference
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend.get_backend("cuda") is reference, "selected once per process"


@pytest.mark.usefixtures("selection")
def test_kernels_that_raise_are_replaced_unless_required(monkeypatch):
    def fail(*inputs):
        raise RuntimeError("no driver")

    monkeypatch.setattr(gpu, "backward", fail)
    with pytest.warns(UserWarning, match="RuntimeError: no driver"):
        assert backend.get_backend("cuda") is reference
    backend.get_backend.cache_clear()
    monkeypatch.setenv("SAPNET_OPS", "triton")
    with pytest.raises(UserError, match="SAPNET_OPS is 'triton', but the Triton kernels fail on this device"):
        backend.get_backend("cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="the tensors are on cpu: unset it"):
        backend.get_backend("cpu")


def test_autocast_keeps_half_precision_where_the_kernels_support_it(monkeypatch):
    """On other backends the filter computes in float32, and three quarters of the network with it."""
    monkeypatch.setattr(backend, "get_backend", lambda device: gpu)
    case = on_device(draw()).leaves()
    for supported, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(backend, "supports_half_precision", lambda device, supported=supported: supported)
        with torch.autocast(DEVICE, torch.bfloat16):
            out = adaptive_filter(*case)
        assert out.dtype == dtype
        gradients = torch.autograd.grad(out.sum(), case[:4])
        assert [g.dtype for g in gradients] == [torch.float32] * 4


def test_chunks_follow_the_memory_of_the_device(monkeypatch):
    assert chunks.chunk_elements(torch.zeros(1)) == chunks.CPU_CHUNK
    monkeypatch.setattr(chunks, "_memory", lambda device: 80 << 30)
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        assert chunks.chunk_elements(torch.empty(1, dtype=dtype, device="meta")) * size == 640 << 20
