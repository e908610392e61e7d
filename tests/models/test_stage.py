import pytest
import torch

from sapnet.layers.canvas import upsample2
from sapnet.models.sapnet.stage import PointMerge


@pytest.mark.parametrize("doubles", [True, False])
def test_point_merge_equals_two_projections_and_a_sum(doubles):
    """Values and gradients of the fused computation equal those of the sum."""
    torch.manual_seed(0)
    merge = PointMerge(5, 4, doubles).double()
    coarse = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 6, 8, 4, dtype=torch.float64, requires_grad=True)
    if not doubles:
        skip = skip[:, ::2, ::2]
    projected = merge.project_coarse(coarse)
    plain = (upsample2(projected) if doubles else projected) + merge.project_skip(skip)
    result = merge(coarse, skip)
    torch.testing.assert_close(result, plain, rtol=1e-12, atol=1e-12)
    cotangent, inputs = torch.randn_like(plain), [coarse, skip, *merge.parameters()]
    for actual, expected in zip(
        *(torch.autograd.grad(output, inputs, cotangent) for output in (result, plain)), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
