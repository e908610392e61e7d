"""The compiled attention of a block equals separate torch operators."""

import pytest
import torch
from torch.autograd import gradcheck

from sapnet.errors import UserError
from sapnet.layers.attention import ClusterAttention
from sapnet.ops import backend, cpu
from sapnet.ops.attention import attend_and_fuse
from tests.ops.cases import distance


@pytest.fixture(autouse=True)
def compiled():
    if backend.get_backend("cpu") is not cpu:
        pytest.skip("the kernel cannot be built here")


class Case:
    """Inputs of the attentions of a block; `cross` states for each whether it pools a separate source."""

    def __init__(self, channels, grid, points, cross, dtype=torch.float64, batch=3):
        torch.manual_seed(0)
        self.attentions = [ClusterAttention(channels).to(dtype) for _ in cross]

        def draw(*shape):
            return torch.randn(*shape, channels, dtype=dtype, requires_grad=True)

        self.grid, self.local = draw(batch, *grid), draw(batch, points)
        self.sources = [draw(batch, *grid) if each else None for each in cross]
        self.p = [torch.rand(batch, points, max(1, channels // 2), dtype=dtype, requires_grad=True) for _ in cross]
        self.fusion = torch.rand(batch, points, 1, dtype=dtype, requires_grad=True)
        parameters = [x for a in self.attentions for n, x in a.named_parameters() if not n.startswith("f_p")]
        inputs = [self.grid, self.local, self.fusion, *self.p, *(s for s in self.sources if s is not None)]
        self.leaves = inputs + parameters

    def fused(self):
        branches = [a.branch(s, p) for a, s, p in zip(self.attentions, self.sources, self.p, strict=True)]
        return attend_and_fuse(self.grid, self.local, self.fusion, branches)

    def separate(self):
        parts = [
            a(self.local, self.grid, self.grid if s is None else s, p=p)
            for a, s, p in zip(self.attentions, self.sources, self.p, strict=True)
        ]
        return torch.lerp(self.local, sum(parts), self.fusion)


SIZES = [(24, (6, 8), 19), (5, (3, 7), 60), (1, (1, 1), 1), (32, (16, 16), 64), (70, (2, 9), 5), (48, (9, 5), 51)]
BOTH, OWN, CROSS = (False, True), (False,), (True,)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("cross", [BOTH, OWN, CROSS, (True, True)])
@pytest.mark.parametrize(("channels", "grid", "points"), SIZES)
def test_fused_result_equals_separate_operators(channels, grid, points, cross, threads):
    case = Case(channels, grid, points, cross)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = case.fused()
        cotangent = torch.randn_like(actual)
        actual = [actual, *torch.autograd.grad(actual, case.leaves, cotangent)]
    finally:
        torch.set_num_threads(before)
    expected = case.separate()
    expected = [expected, *torch.autograd.grad(expected, case.leaves, cotangent)]
    for a, b in zip(actual, expected, strict=True):
        # The result does not depend on the bias of Q, so its gradient is only rounding error.
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("cross", [BOTH, OWN])
@pytest.mark.parametrize(("channels", "grid"), [(24, (32, 32)), (32, (8, 16)), (48, (4, 4))])
def test_single_precision(channels, grid, cross):
    """Compared with separate operators in float64, at the widths and sizes of `network=mini`."""
    points = grid[0] * grid[1]
    cotangent = torch.randn(3, points, channels, generator=torch.Generator().manual_seed(1))
    results = []
    for run, dtype in (("fused", torch.float32), ("separate", torch.float64)):
        case = Case(channels, grid, points, cross, torch.float32)
        if dtype == torch.float64:
            case = to_double(case)
        out = getattr(case, run)()
        results.append([out, *torch.autograd.grad(out, case.leaves, cotangent.to(dtype))])
    for actual, exact in zip(*results, strict=True):
        if exact.abs().max() < 1e-10:  # the bias of Q
            assert actual.abs().max() < 1e-3
        else:
            # The gradient of the bias of M_S is a sum with cancellation.
            assert distance(actual, exact) < (5e-5 if exact.numel() == 1 else 3e-6)


def to_double(case):
    """Convert a case to float64."""
    double = Case.__new__(Case)
    double.attentions = [a.double() for a in case.attentions]
    converted = {id(x): x.detach().double().requires_grad_() for x in case.leaves}
    parameters = {id(x) for a in double.attentions for x in a.parameters()}

    def find(x):
        return x if x is None else converted[id(x)]

    double.grid, double.local, double.fusion = map(find, (case.grid, case.local, case.fusion))
    double.p, double.sources = list(map(find, case.p)), list(map(find, case.sources))
    double.leaves = [x if id(x) in parameters else converted[id(x)] for x in case.leaves]
    return double


@pytest.mark.parametrize("cross", [BOTH, CROSS])
def test_gradients(cross):
    case = Case(3, (2, 3), 4, cross, batch=2)
    assert gradcheck(lambda *_: case.fused(), case.leaves)


def test_large_logits_give_finite_results():
    case = Case(8, (4, 4), 16, OWN, torch.float32)
    with torch.no_grad():
        case.attentions[0].f_q.weight.mul_(1e4)
    actual, expected = case.fused(), case.separate()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(actual.sum(), case.leaves))


@pytest.mark.parametrize("where", ["grid", "local", "fusion"])
def test_nan_propagates(where):
    case = Case(8, (4, 4), 16, BOTH)
    with torch.no_grad():
        getattr(case, where)[1, 2] = torch.nan
    actual, expected = case.fused(), case.separate()
    assert torch.equal(actual.isnan(), expected.isnan()) and actual.isnan().any()


def test_a_large_grid_keeps_precision():
    """Sums in float32 over the 65,536 positions of a 512x512 image at the finest scale."""
    case = Case(8, (256, 256), 3, OWN, torch.float32, batch=1)
    with torch.no_grad():
        case.grid += 1
        actual, exact = case.fused(), to_double(case).separate()
    assert distance(actual, exact) < 3e-6


def test_source_without_gradient_and_reproducibility():
    case = Case(8, (4, 6), 9, BOTH, torch.float32)
    case.sources[1].requires_grad_(False)
    leaves = [x for x in case.leaves if x.requires_grad]
    first, second = (torch.autograd.grad(case.fused().square().sum(), leaves) for _ in range(2))
    assert all(map(torch.equal, first, second))
    expected = torch.autograd.grad(case.separate().square().sum(), leaves)
    for a, b in zip(first, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_mismatched_inputs_are_refused():
    case = Case(8, (4, 6), 9, BOTH)
    case.sources[1] = case.sources[1][:, :2]
    with pytest.raises(UserError, match=r"source must be \[3, 4, 6, 8\] like the grid, not \[3, 2, 6, 8\]"):
        case.fused()
    case = Case(8, (4, 6), 9, BOTH)
    case.local = case.local.float()
    with pytest.raises(UserError, match=r"the grid is torch\.float64, another tensor of the attention torch\.float32"):
        case.fused()
