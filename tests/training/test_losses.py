import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from sapnet.training.losses import StageLoss


@pytest.mark.parametrize(("kind", "values"), [("l1", (0.1, 0.3)), ("mse", (0.01, 0.09))])
def test_values_of_known_errors(kind, values):
    sharp = torch.zeros(1, 3, 2, 2)
    outputs = [torch.full_like(sharp, 0.1), torch.full_like(sharp, -0.3)]
    torch.testing.assert_close(StageLoss(kind)(outputs, sharp), torch.tensor(sum(values) / 2))
    torch.testing.assert_close(StageLoss(kind, progressive=False)(outputs, sharp), torch.tensor(values[1]))


def test_charbonnier_is_smooth_at_zero():
    output = torch.zeros(1, 3, 2, 2, requires_grad=True)
    StageLoss("charbonnier")([output], torch.zeros(1, 3, 2, 2)).backward()
    assert output.grad.isfinite().all()


def test_charbonnier_is_quadratic_below_epsilon_and_linear_above():
    loss, sharp = StageLoss("charbonnier", epsilon=0.01), torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    small, large = (loss([torch.full_like(sharp, d)], sharp).item() - 0.01 for d in (1e-4, 1.0))
    assert small == pytest.approx(1e-4**2 / 0.02, rel=1e-3) and large == pytest.approx(0.99, rel=1e-3)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="l3"):
        StageLoss("l3")


def test_the_truth_is_reduced_to_the_size_of_a_coarse_output():
    sharp = torch.rand(1, 3, 8, 12)
    halved = torch.nn.functional.avg_pool2d(sharp, 2)
    coarse, fine = StageLoss("l1").per_stage([halved + 0.25, sharp + 0.5], sharp)
    assert (float(coarse), float(fine)) == pytest.approx((0.25, 0.5))


def test_frequency_term_is_the_distance_of_the_real_and_imaginary_parts():
    output, sharp = torch.rand(2, 2, 3, 8, 6).unbind()
    (both,), (pixelwise,) = (StageLoss("l1", frequency=w).per_stage([output], sharp) for w in (0.1, 0))
    spectra = (np.fft.fft2(image.double().numpy()) for image in (output, sharp))
    difference = next(spectra) - next(spectra)
    expected = 0.1 * (np.abs(difference.real).mean() + np.abs(difference.imag).mean()) / 2
    assert float(both - pixelwise) == pytest.approx(expected, rel=1e-4)


def test_edge_term_is_zero_where_the_image_is_smooth_and_large_at_single_pixels():
    def edge(error):
        sharp = torch.rand(1, 3, 16, 16, dtype=torch.float64)
        (both,), (pixelwise,) = (
            StageLoss("charbonnier", epsilon=1e-9, edge=w).per_stage([sharp + error], sharp) for w in (1, 0)
        )
        return float(both - pixelwise)

    assert edge(torch.full((1, 3, 16, 16), 0.5)) == pytest.approx(0, abs=1e-6)
    point = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    point[..., 8, 9] = 1
    # The pyramid's kernel at distance 0 and 1, for a pixel in an even row and an odd column.
    smooth = 4 * (0.4**2 + 2 * 0.05**2) * 2 * 0.25**2
    laplacian = expected_laplacian(point[0, 0].numpy())
    assert laplacian[8, 9] == pytest.approx(1 - smooth)
    assert edge(point) == pytest.approx(np.abs(laplacian).mean(), rel=1e-6)


def expected_laplacian(image):
    """Return an image minus its expanded reduction, computed by SciPy."""
    taps = np.array([0.05, 0.25, 0.4, 0.25, 0.05])

    def smoothed(image):
        return correlate1d(correlate1d(image, taps, 0, mode="mirror"), taps, 1, mode="mirror")

    expanded = np.zeros_like(image)
    expanded[::2, ::2] = 4 * smoothed(image)[::2, ::2]
    return image - smoothed(expanded)
