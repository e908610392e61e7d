import pytest
import torch
from torch.autograd import gradcheck

from benchmarks.cases import builder, compose_overrides
from sapnet.layers.content_aware import ContentAware, ContentAwareBlock, ContentAwareOptions, regrid
from sapnet.layers.windows import PointWindows, cover
from sapnet.ops import backend, cpu, reference


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Change all parameters from their special initial values (V = 1, offsets = 0)."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=rng))
    return module


def everywhere(canvas: torch.Tensor) -> torch.Tensor:
    batch, height, width, _ = canvas.shape
    return torch.arange(height * width).expand(batch, -1).contiguous()


def dense(block, canvas, source):
    """Compute the block at every canvas position without points."""
    ca = block.content_aware
    values = canvas.flatten(1, 2)
    grid = canvas[:, ::2, ::2]
    attended = ca.self_attention(values, grid, grid) + ca.cross_attention(values, grid, source[:, ::2, ::2])
    mask = torch.sigmoid(ca.f_fus(values))
    fused = mask * attended + (1 - mask) * ca.filter(canvas, values)  # Eq. 20
    return canvas + block.project(torch.relu(fused)).view_as(canvas)


def test_every_position_sampled_equals_the_dense_computation():
    """Outputs and gradients of the complete path through points."""
    torch.manual_seed(0)
    block = randomise(ContentAwareBlock(5, ContentAwareOptions(kernel_size=3), cross=True).double())
    inputs = [torch.randn(2, 6, 8, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    results = [block(inputs[0], everywhere(inputs[0]), inputs[1]), dense(block, *inputs)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    tensors = [*inputs, *block.parameters()]
    cotangent = torch.randn_like(results[0])
    for actual, expected in zip(*(torch.autograd.grad(result, tensors, cotangent) for result in results), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_unsampled_positions_keep_their_value():
    block = randomise(ContentAwareBlock(4, ContentAwareOptions()))
    canvas = torch.randn(1, 8, 8, 4)
    points = torch.tensor([[3, 17, 60, -1]])
    refined = block(canvas, points)
    changed = (refined != canvas).any(-1).flatten().nonzero().flatten().tolist()
    assert changed == [3, 17, 60]


@torch.no_grad()
def test_refining_in_place_gives_the_same_result_without_a_copy():
    block = randomise(ContentAwareBlock(4, ContentAwareOptions(), cross=True))
    canvas, source = torch.randn(2, 8, 8, 4), torch.randn(2, 8, 8, 4)
    points = torch.tensor([[3, 17, 60, -1], [0, 5, 9, 63]])
    expected = block(canvas, points, source)
    refined = block(canvas, points, source, in_place=True)
    assert refined.data_ptr() == canvas.data_ptr()
    torch.testing.assert_close(refined, expected, rtol=0, atol=0)


def test_result_does_not_depend_on_the_order_of_the_points():
    block = randomise(ContentAwareBlock(4, ContentAwareOptions()).double())
    canvas = torch.randn(1, 8, 8, 4, dtype=torch.float64)
    points = torch.tensor([[3, 17, 44, 60]])
    torch.testing.assert_close(block(canvas, points), block(canvas, points[:, [2, 0, 3, 1]]))


@pytest.mark.parametrize("sampled", [False, True])
def test_gradients(sampled):
    torch.manual_seed(1)
    block = randomise(ContentAwareBlock(3, ContentAwareOptions(kernel_size=3), cross=True).double())
    canvas, source = (torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    points = torch.tensor([[1, 6, 15, -1]]) if sampled else None
    assert gradcheck(lambda c, s: block(c, points, s), (canvas, source))


SWITCHES = {
    "self_attention": "content_aware.self_attention.",
    "masks": "mask_",
    "kernel": "f_ker",
    "offsets": "f_off",
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_disabled_option_has_no_parameters(switch):
    def names(**options):
        return {n for n, _ in ContentAwareBlock(4, ContentAwareOptions(**options), cross=True).named_parameters()}

    removed = names() - names(**{switch: False})
    assert removed and all(SWITCHES[switch] in name for name in removed)
    assert names(**{switch: False}) < names()


def test_without_attention_the_block_has_only_the_filter():
    """The Baseline of Table 4 is a plain convolution in a residual block, Y = Y_dyn."""
    options = ContentAwareOptions(self_attention=False, kernel=False, offsets=False)
    block = ContentAwareBlock(4, options)
    assert {n for n, _ in block.named_parameters()} == {"content_aware.filter.weight", "project.weight", "project.bias"}
    canvas = torch.randn(1, 6, 7, 4)
    filtered = torch.nn.functional.conv2d(canvas.movedim(-1, 1), block.content_aware.filter.weight, padding=2)
    expected = canvas + block.project(torch.relu(filtered).movedim(1, -1))
    torch.testing.assert_close(block(canvas), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_fusion_variants(fusion):
    block = randomise(ContentAwareBlock(4, ContentAwareOptions(fusion=fusion)).double())
    ca, canvas = block.content_aware, torch.randn(1, 4, 4, 4, dtype=torch.float64)
    values = canvas.flatten(1, 2)
    attended, local = ca.self_attention(values, canvas, canvas), ca.filter(canvas, values)
    fused = attended + local if fusion == "add" else ca.f_fus(torch.cat([attended, local], -1))
    expected = canvas + block.project(torch.relu(fused)).view_as(canvas)
    torch.testing.assert_close(block(canvas), expected)


def test_regrid_supports_half_equal_and_double_resolution():
    canvas = torch.arange(16.0).view(1, 4, 4, 1)
    assert torch.equal(regrid(canvas, 2, 2)[0, :, :, 0], torch.tensor([[0.0, 2.0], [8.0, 10.0]]))
    assert regrid(canvas, 4, 4) is canvas
    assert torch.equal(regrid(regrid(canvas, 8, 8), 4, 4), canvas)
    with pytest.raises(ValueError, match="4x4"):
        regrid(canvas, 3, 3)


def test_option_name_of_earlier_checkpoints_is_accepted():
    assert ContentAwareOptions(normalisation="elu") == ContentAwareOptions(normalisation="elu_normalised")


@pytest.fixture
def attended(monkeypatch):
    """Record the calls of the compiled attention."""
    if backend.get_backend("cpu") is not cpu:
        pytest.skip("the kernel cannot be built here")
    calls, real = [], cpu.attention_forward
    monkeypatch.setattr(cpu, "attention_forward", lambda inputs: calls.append(len(inputs)) or real(inputs))
    return calls


@pytest.mark.parametrize("sampling", ["uniform_network", "random"])
def test_default_network_uses_the_compiled_attention(sampling, attended):
    """Otherwise a training step would be at least 10% slower."""
    network = builder(compose_overrides(["network=mini", f"sampling={sampling}"]))()
    run = network(torch.rand(1, 3, 32, 32))
    blocks = [m for m in network.modules() if isinstance(m, ContentAware)]
    assert len(attended) == len(blocks) == 36
    both = sum(block.cross_attention is not None for block in blocks)
    assert sorted(attended) == [11] * (36 - both) + [19] * both
    (run[-1] if isinstance(run, list) else run[0][-1]).sum().backward()


@pytest.mark.parametrize(
    "other",
    [
        {"normalisation": "elu_normalised"},
        {"normalisation": "elu_unnormalised"},
        {"masks": False},
        {"fusion": "add"},
        {"fusion": "concat"},
        {"full_attention": True},
        {"self_attention": False, "cross_attention": False},
    ],
)
def test_other_options_use_the_standard_operators(other, attended):
    cross = other.get("cross_attention", True)
    block = ContentAwareBlock(4, ContentAwareOptions(kernel_size=3, **other), cross=cross, lowest=True)
    block(torch.rand(1, 4, 4, 4), None, torch.rand(1, 4, 4, 4))
    assert not attended


def test_windows_autocast_and_the_reference_use_the_standard_operators(attended, monkeypatch):
    block = randomise(ContentAwareBlock(4, ContentAwareOptions(kernel_size=3)))
    canvas = torch.randn(1, 8, 8, 4)
    usual = block(canvas)
    assert len(attended) == 1
    windows = PointWindows(cover(8, 8, (4, 4), 4), (1, 8, 8), None)
    block(canvas, windows=windows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(canvas)
    monkeypatch.setattr(backend, "get_backend", lambda device: reference)
    torch.testing.assert_close(block(canvas), usual, rtol=1e-4, atol=1e-5)
    assert len(attended) == 1
