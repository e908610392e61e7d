import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.sampling.points import (
    budget_count,
    canvas_size,
    coordinates_from_points,
    gather,
    points_from_coordinates,
    restore,
    sample,
    scatter,
)
from tests.reference import sampling as reference


@st.composite
def scenes(draw):
    """Draw a canvas and distinct points on it, with some unused slots."""
    b, h, w, c = (draw(st.integers(1, n)) for n in (3, 7, 7, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    slots = draw(st.integers(0, h * w))
    points = torch.full((b, slots + draw(st.integers(0, 3))), -1)
    for row in points:
        used = draw(st.integers(0, slots))
        row[:used] = torch.randperm(h * w, generator=rng)[:used].sort().values
    return torch.randn(b, h, w, c, generator=rng, dtype=torch.float64), points, rng


@settings(deadline=None)
@given(scenes())
def test_scatter_inverts_gather_and_changes_only_points(scene):
    canvas, points, rng = scene
    values = gather(canvas, points)
    assert torch.equal(scatter(canvas, values, points), canvas)
    fresh = torch.randn(values.shape, generator=rng, dtype=torch.float64)
    out = scatter(canvas, fresh, points)
    used = points >= 0
    assert torch.equal(gather(out, points)[used], fresh[used])
    assert (gather(out, points)[~used] == 0).all()
    touched = (out != canvas).any(-1).flatten(1)
    for image, row in zip(touched, points, strict=True):
        assert set(image.nonzero().flatten().tolist()) == set(row[row >= 0].tolist())


@settings(deadline=None)
@given(scenes())
def test_result_does_not_depend_on_the_order_of_the_points(scene):
    canvas, points, rng = scene
    values = torch.randn(*points.shape, canvas.shape[-1], generator=rng, dtype=torch.float64)
    order = torch.randperm(points.shape[1], generator=rng)
    assert torch.equal(scatter(canvas, values, points), scatter(canvas, values[:, order], points[:, order]))


@settings(deadline=None)
@given(scenes())
def test_paper_operators_match_the_equations(scene):
    canvas, points, rng = scene
    x = canvas.movedim(-1, 1)
    h, w = x.shape[-2:]
    psi = coordinates_from_points(points, h, w)
    assert torch.equal(points_from_coordinates(psi, h, w), points)
    y = sample(x, psi)
    assert torch.equal(y, reference.sample(x, psi))
    fresh = torch.randn(y.shape, generator=rng, dtype=torch.float64)
    assert torch.equal(restore(fresh, psi, x), reference.restore(fresh, psi, x))
    assert torch.equal(restore(fresh, psi, (h, w)), reference.restore(fresh, psi, torch.zeros_like(x)))
    assert torch.equal(restore(y, psi, x), x)


def test_coordinates_at_the_border_stay_inside():
    psi = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]])
    assert points_from_coordinates(psi, 3, 5).tolist() == [[0, 14, 4, -1]]


def test_coordinates_survive_float32_at_large_sizes():
    h, w = 1080, 1921
    points = torch.arange(h * w)[None]
    psi = coordinates_from_points(points, h, w)
    assert psi.dtype == torch.float32
    assert torch.equal(points_from_coordinates(psi, h, w), points)


def test_unused_slots_have_no_gradient():
    canvas = torch.full((1, 2, 2, 1), float("nan"), dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[-1, -1]])
    values = torch.ones(1, 2, 1, dtype=torch.float64, requires_grad=True)
    read = gather(canvas, points)
    assert (read == 0).all()
    (read.sum() + scatter(torch.zeros_like(canvas), values, points).sum()).backward()
    assert (canvas.grad == 0).all() and (values.grad == 0).all()


def test_gradients_to_second_order():
    torch.manual_seed(0)
    canvas = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0, 3, 5, 11, -1], [1, 2, 7, -1, -1]])
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: gather(x, points) ** 3, (canvas,))
        assert check(lambda x, v: scatter(x, v, points) ** 3, (canvas, values))


def test_values_are_converted_to_the_dtype_of_the_canvas():
    canvas = torch.zeros(1, 2, 2, 1)
    values = torch.ones(1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    out = scatter(canvas, values, torch.tensor([[2]]))
    assert out.dtype == torch.float32 and out.flatten().tolist() == [0, 0, 1, 0]
    out.sum().backward()
    assert values.grad.dtype == torch.bfloat16 and values.grad.item() == 1


def test_gather_from_a_strided_canvas():
    x = torch.randn(2, 3, 4, 5)
    points = torch.tensor([[0, 7, 19], [3, -1, -1]])
    assert torch.equal(gather(x.movedim(1, -1), points), gather(x.movedim(1, -1).contiguous(), points))


@pytest.mark.parametrize(
    ("budget", "count"), [(0.0, 16384), (-0.1, 14746), (0.1, 18022), (0.2, 19661), (2.0, 49152), (3.0, 65536)]
)
def test_budget_of_a_256_image_at_scale_2(budget, count):
    assert budget_count(256, 256, 2, budget) == count


@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from([2, 4, 8]), st.floats(-0.9, 3.0))
def test_budget_never_exceeds_the_canvas(height, width, scale, budget):
    rows, columns = canvas_size(height, width, scale)
    count = budget_count(height, width, scale, budget)
    assert 0 <= count <= rows * columns
    assert count == min(round((1 + budget) * height * width / scale**2), rows * columns)


def test_full_candidates_keep_the_count():
    assert budget_count(64, 64, 8, 0.1, "full") == budget_count(64, 64, 8, 0.1)
    assert canvas_size(64, 48, 8, "full") == (64, 48) and canvas_size(64, 48, 8) == (16, 12)


@pytest.mark.parametrize("budget", [-1.0, 3.5])
def test_invalid_budget_is_refused(budget):
    with pytest.raises(UserError, match="budget"):
        budget_count(8, 8, 2, budget)


def test_unknown_candidates_and_odd_scale_are_refused():
    with pytest.raises(UserError, match="candidates"):
        budget_count(8, 8, 2, 0.0, "some")
    with pytest.raises(UserError, match="scale"):
        budget_count(8, 8, 3)
