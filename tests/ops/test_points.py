"""Reading and writing a canvas at points."""

import pytest
import torch

from sapnet.ops.points import gather, put, scatter, take


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("used", [("values", "grid", "put"), ("values", "put"), ("grid",), ("values",), ("put",)])
def test_take_and_put_equal_gather_slicing_and_scatter(used, stride):
    torch.manual_seed(0)
    canvas = torch.randn(2, 4, 8, 3, dtype=torch.float64, requires_grad=True)
    change = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    # On and off the grid, and an unused slot.
    points = torch.tensor([[0, 3, 9, 18, 31], [1, 2, 16, 30, -1]])

    def fused():
        values, grid, rest = take(canvas, points, stride)
        return {"values": values, "grid": grid, "put": put(rest, values * change, points)}

    def separate():
        values = gather(canvas, points)
        grid = canvas[:, ::stride, ::stride]
        return {"values": values, "grid": grid, "put": scatter(canvas, values * change, points)}

    results = []
    for run in (fused, separate):
        out = run()
        loss = sum((out[name] * torch.linspace(1, 2, out[name].numel()).view(out[name].shape)).sum() for name in used)
        results.append([*out.values(), *torch.autograd.grad(loss, (canvas, change), allow_unused=True)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_canvas_without_a_regular_grid_is_refused():
    with pytest.raises(ValueError, match="a canvas of 4x6 has no regular grid of every 4th position"):
        take(torch.zeros(1, 4, 6, 2), torch.zeros(1, 1, dtype=torch.int64), 4)
