"""Conventions, gradients, properties, registration and error messages of the operator, for both backends."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.ops import adaptive_filter
from tests.ops.cases import Case, distance, draw

pytestmark = pytest.mark.usefixtures("implementation")
properties = settings(max_examples=10, deadline=None)


def convolve(canvas, weight):
    groups, image = canvas.shape[-1] // weight.shape[1], canvas.permute(0, 3, 1, 2)
    return F.conv2d(image, weight, padding=weight.shape[-1] // 2, groups=groups).permute(0, 2, 3, 1)


@pytest.mark.parametrize("c,o,size,depthwise", [(1, 1, 3, 0), (3, 5, 5, 0), (17, 17, 3, 1), (16, 8, 1, 0)])
def test_without_kernel_and_offsets_it_is_a_convolution(c, o, size, depthwise):
    case = draw(c=c, o=o, size=size, depthwise=bool(depthwise), points="all").double()
    assert distance(adaptive_filter(case.canvas, case.weight), convolve(case.canvas, case.weight).flatten(1, 2)) < 1e-14


def test_kernel_of_ones_and_zero_offsets_give_a_convolution():
    case = draw(points="all", offsets="zero").double()
    out = adaptive_filter(case.canvas, case.weight, torch.ones_like(case.kernel), case.offsets)
    assert distance(out, convolve(case.canvas, case.weight).flatten(1, 2)) < 1e-14


def test_offsets_are_rows_then_columns_and_taps_in_raster_order():
    """The last of nine taps of the point (1, 1), shifted by (-1, 0.25), samples a bright pixel at (1, 2)."""
    canvas, weight = torch.zeros(1, 4, 5, 1), torch.arange(1.0, 10).view(1, 1, 3, 3)
    canvas[0, 1, 2] = 1
    kernel, offsets = torch.zeros(1, 1, 9), torch.zeros(1, 1, 9, 2)
    kernel[0, 0, 8], offsets[0, 0, 8] = 2, torch.tensor([-1.0, 0.25])
    out = adaptive_filter(canvas, weight, kernel, offsets, torch.tensor([[1 * 5 + 1]]))
    assert out.item() == 2 * 9 * 0.75


def test_points_equal_the_dense_filter():
    case = draw(points="all").double()
    points = torch.tensor([[2, 7, 20, -1], [0, 1, 29, 5]])
    index = points.clamp(min=0)[..., None]
    kernel = case.kernel.gather(1, index.expand(-1, -1, 9))
    offsets = case.offsets.gather(1, index[..., None].expand(-1, -1, 9, 2))
    out = adaptive_filter(case.canvas, case.weight, kernel, offsets, points)
    dense = adaptive_filter(*case).gather(1, index.expand(-1, -1, 4))
    assert not out[0, 3].any()
    assert distance(out[points >= 0], dense[points >= 0]) < 1e-14


def test_padded_points_have_no_gradient():
    case = draw().leaves()
    length = case.points.shape[1]
    with torch.no_grad():
        case.kernel[:, length - 1] = torch.nan
    adaptive_filter(*case).sum().backward()
    for tensor in case[:4]:
        assert tensor.grad.isfinite().all()
    assert not case.kernel.grad[:, -1].any() and not case.offsets.grad[:, -1].any()


@pytest.mark.parametrize("points", ["all", "shuffled"])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("offsets", [None, "random"])
def test_gradients_between_integer_positions(points, depthwise, offsets):
    case = draw(b=1, h=2, w=3, c=2, o=3, depthwise=depthwise, points=points, offsets=offsets).double()
    if offsets:
        whole = case.offsets.floor()
        case = case._replace(offsets=whole + (case.offsets - whole).clamp(0.1, 0.9))
    inputs = [t for t in case[:4] if t is not None]

    def filter_inputs(*tensors):
        iterator = iter(tensors)
        return adaptive_filter(*(None if t is None else next(iterator) for t in case[:4]), case.points)

    assert torch.autograd.gradcheck(filter_inputs, [t.clone().requires_grad_() for t in inputs])


def test_gradient_at_integer_positions_is_the_right_hand_derivative():
    """The slope of the canvas is 0 to the left and 3 to the right of the point."""
    canvas = torch.tensor([0.0, 0, 0, 3, 6]).view(1, 1, 5, 1).expand(1, 3, 5, 1)
    offsets = torch.zeros(1, 1, 1, 2, requires_grad=True)
    adaptive_filter(canvas, torch.ones(1, 1, 1, 1), None, offsets, torch.tensor([[5 + 2]])).sum().backward()
    assert offsets.grad.flatten().tolist() == [0, 3]


@pytest.mark.parametrize("index", range(4))
def test_single_gradients_equal_joint_gradients(index):
    case = draw(seed=3).double()
    together = case.leaves()
    adaptive_filter(*together).square().sum().backward()
    alone = Case(*(t.clone().requires_grad_() if i == index else t for i, t in enumerate(case)))
    adaptive_filter(*alone).square().sum().backward()
    torch.testing.assert_close(alone[index].grad, together[index].grad)


@pytest.mark.parametrize("name", ["canvas", "weight", "kernel", "offsets"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_propagate(name, bad):
    case = draw(b=1)
    getattr(case, name).view(-1)[0] = bad
    if name == "canvas":
        case = case._replace(offsets=None)
    out = adaptive_filter(*case._replace(points=torch.arange(15)[None]))
    # An infinite offset samples outside the canvas.
    assert out.isfinite().all() == (name == "offsets" and bad == torch.inf)


@properties
@given(seed=st.integers(0, 10**6), a=st.floats(-3, 3), depthwise=st.booleans())
def test_output_is_linear_in_the_weight(seed, a, depthwise):
    case = draw(seed=seed, depthwise=depthwise).double()
    other = torch.randn_like(case.weight)
    mixed = adaptive_filter(*case._replace(weight=case.weight + a * other))
    torch.testing.assert_close(mixed, adaptive_filter(*case) + a * adaptive_filter(*case._replace(weight=other)))


@properties
@given(seed=st.integers(0, 10**6))
def test_permuted_points_permute_the_output_and_keep_the_gradients(seed):
    case = draw(h=9, w=13, seed=seed).double()
    order = torch.randperm(case.points.shape[1], generator=torch.Generator().manual_seed(seed))
    moved = case._replace(kernel=case.kernel[:, order], offsets=case.offsets[:, order], points=case.points[:, order])
    case, moved = case.leaves(), moved.leaves()
    out, out_moved = adaptive_filter(*case), adaptive_filter(*moved)
    torch.testing.assert_close(out_moved, out[:, order])
    out.square().sum().backward()
    out_moved.square().sum().backward()
    torch.testing.assert_close(moved.canvas.grad, case.canvas.grad)
    torch.testing.assert_close(moved.weight.grad, case.weight.grad)
    torch.testing.assert_close(moved.offsets.grad, case.offsets.grad[:, order])


@properties
@given(seed=st.integers(0, 10**6), dy=st.integers(-7, 7), dx=st.integers(-7, 7))
def test_integer_offsets_shift_the_canvas(seed, dy, dx):
    case = draw(points="all", kernel=False, offsets="zero", seed=seed).double()
    _, h, w, _ = case.canvas.shape
    around = F.pad(case.canvas, (0, 0, 8, 8, 8, 8))
    moved = convolve(around, case.weight)[:, 8 + dy : 8 + dy + h, 8 + dx : 8 + dx + w]
    out = adaptive_filter(*case._replace(offsets=case.offsets + torch.tensor([dy, dx])))
    torch.testing.assert_close(out, moved.flatten(1, 2))


def test_any_memory_layout_is_accepted():
    case = draw(c=4, o=4).double()
    strange = Case(*(None if t is None else t.transpose(0, 1).contiguous().transpose(0, 1) for t in case))
    assert not strange.canvas.is_contiguous()
    case, strange = case.leaves(), strange.leaves()
    out, out_strange = adaptive_filter(*case), adaptive_filter(*strange)
    grad = torch.randn_like(out).transpose(0, 1).contiguous().transpose(0, 1)
    out.backward(grad.contiguous())
    out_strange.backward(grad)
    torch.testing.assert_close(out_strange, out)
    for a, b in zip(strange[:4], case[:4], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("b,length", [(2, 0), (0, 3)])
def test_empty_inputs_give_empty_output_and_zero_gradients(b, length):
    canvas, weight = torch.randn(b, 4, 4, 3, requires_grad=True), torch.randn(5, 3, 3, 3, requires_grad=True)
    points = torch.zeros(b, length, dtype=torch.int64)
    out = adaptive_filter(canvas, weight, torch.ones(b, length, 9), torch.zeros(b, length, 9, 2), points)
    assert out.shape == (b, length, 5)
    out.sum().backward()
    assert not canvas.grad.any() and not weight.grad.any()


@pytest.mark.parametrize("case", [draw(), draw(depthwise=True, kernel=False), draw(offsets=None, points="all")])
def test_opcheck(case):
    """Schema, autograd, meta kernel and tracing by the front end of torch.compile."""
    torch.library.opcheck(torch.ops.sapnet.adaptive_filter.default, tuple(case.leaves()))
    grad = torch.randn_like(adaptive_filter(*case))
    needed = [True, False, case.kernel is not None, False]
    torch.library.opcheck(torch.ops.sapnet.adaptive_filter_backward.default, (grad, *case, needed))


def test_only_inputs_are_saved_for_backward():
    case, saved = draw().leaves(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        adaptive_filter(*case)
    assert set(saved) == {t.data_ptr() for t in case}


def test_autocast_computes_in_float32():
    case = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = adaptive_filter(case.canvas.bfloat16(), *case[1:])
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, adaptive_filter(case.canvas.bfloat16().float(), *case[1:]))


def test_a_second_derivative_is_refused():
    case = draw().leaves()
    (grad,) = torch.autograd.grad(adaptive_filter(*case).square().sum(), case.canvas, create_graph=True)
    with pytest.raises(UserError, match="once"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"canvas": torch.zeros(3, 4, 5)}, "canvas must be"),
        ({"canvas": torch.zeros(2, 0, 6, 3)}, "no pixels"),
        ({"weight": torch.zeros(4, 3, 2, 2)}, "K odd"),
        ({"weight": torch.zeros(4, 5, 3, 3)}, "for 3 channels"),
        ({"weight": torch.zeros(4, 1, 3, 3)}, "for 3 channels"),
        ({"kernel": torch.zeros(2, 15, 8)}, "kernel must be"),
        ({"offsets": torch.zeros(2, 15, 9)}, "offsets must be"),
        ({"points": torch.zeros(2, 15)}, "points must be int64"),
        ({"points": torch.full((2, 15), 30)}, r"points must be in \[-1, 29\]"),
        ({"points": torch.full((2, 15), -2)}, r"points must be in \[-1, 29\]"),
        ({"kernel": torch.zeros(2, 15, 9).double()}, "kernel is torch.float64"),
        ({"canvas": torch.zeros(2, 5, 6, 3).half()}, "float32 or float64"),
        ({"offsets": torch.zeros(2, 15, 9, 2, device="meta")}, "offsets is on meta"),
    ],
)
def test_mismatched_inputs_are_refused(change, message):
    # Without the type checks of the tests, which would refuse some of the shapes before the operator does.
    unchecked = inspect.unwrap(adaptive_filter)
    with pytest.raises(UserError, match=message):
        unchecked(*draw()._replace(**change))
