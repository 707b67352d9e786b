"""Noise has its deviation and its length, thick slices keep the mean, windows map as windows do, curves rise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.patches import intensity
from hilum.patches.acquisition import LOW_CUT, ct_noise, thick_matrix, thickness, window
from hilum.patches.augment import AugmentSettings, ItemParameters, apply_item, draw_item


@pytest.mark.parametrize("sigma", [(0.0, 0.0, 0.0), (0.0, 0.8, 0.8), (0.9, 1.2, 0.7), (0.1, 0.15, 0.15)])
def test_ct_noise_has_its_deviation_everywhere(sigma: tuple[float, float, float]) -> None:
    noise = ct_noise(torch.zeros(40, 6, 32, 32), 25.0, *sigma, 3)
    assert noise.std().item() == pytest.approx(25, rel=0.02)
    for edge in (noise[..., 0], noise[..., 0, :], noise[:, 0], noise[:, -1]):
        assert edge.std().item() == pytest.approx(25, rel=0.06)
    assert abs(noise.mean().item()) < 0.5
    assert torch.equal(noise, ct_noise(torch.zeros(40, 6, 32, 32), 25.0, *sigma, 3))
    assert not torch.equal(noise, ct_noise(torch.zeros(40, 6, 32, 32), 25.0, *sigma, 4))


@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_ct_noise_is_correlated_as_its_kernel(sigma: float) -> None:
    noise = ct_noise(torch.zeros(60, 1, 64, 64), 10.0, 0.0, sigma, sigma, 8)[:, 0]

    def expected(lag: float) -> float:
        # autocovariance of blur(sigma) - LOW_CUT blur(2 sigma) of white noise, each pair a Gaussian
        pairs = ((1, 2 * sigma**2), (-2 * LOW_CUT, 5 * sigma**2), (LOW_CUT**2, 8 * sigma**2))
        return sum(k * math.exp(-(lag**2) / (2 * v)) / v for k, v in pairs)

    for lag in (1, 2, 3, 5):
        for found in ((noise[..., lag:] * noise[..., :-lag]).mean(), (noise[:, lag:] * noise[:, :-lag]).mean()):
            assert found.item() / 100 == pytest.approx(expected(lag) / expected(0), abs=0.03), lag
    # the power at frequency zero is nearly gone: means of large squares spread less than those of white noise
    assert noise.mean(dim=(1, 2)).std().item() < 0.6 * 10 * sigma * 2 * math.sqrt(math.pi) / 64


def test_thick_noise_along_depth() -> None:
    noise = ct_noise(torch.zeros(1, 64, 40, 40), 10.0, 1.0, 0.0, 0.0, 1)[0]
    # blurred once along D: the autocorrelation of a Gaussian blur is exp(-lag^2 / 4 sigma^2)
    assert ((noise[1:] * noise[:-1]).mean() / 100).item() == pytest.approx(math.exp(-0.25), abs=0.03)
    assert abs(((noise[:, 1:] * noise[:, :-1]).mean() / 100).item()) < 0.03


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 70), voxels=st.floats(0.1, 90))
def test_thick_slices_keep_means_and_constants(n: int, voxels: float) -> None:
    matrix = thick_matrix(n, voxels)
    if matrix is None:
        assert voxels <= 1 or max(1, round(n / voxels)) >= n
        return
    assert matrix.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5)
    assert matrix.sum(axis=0) == pytest.approx(np.ones(n), abs=1e-5)
    assert (matrix >= -1e-6).all()
    image = torch.randn((1, n, 3, 2), generator=torch.Generator().manual_seed(n))
    after = thickness(image.clone(), voxels)
    torch.testing.assert_close(after.mean(dim=1), image.mean(dim=1), rtol=0, atol=1e-5)
    assert after.std() <= image.std() + 1e-6


def test_thick_slices_by_hand() -> None:
    # 4 slices of 2: averages 0.5 and 4.5, centres at voxel borders 1 and 3, the line averaged over each voxel
    image = torch.tensor([0.0, 1.0, 4.0, 5.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(thickness(image, 2.0).flatten(), torch.tensor([0.5, 1.5, 3.5, 4.5]))
    assert thickness(image, 1.0) is image and thickness(image, 0.3) is image


def test_another_window() -> None:
    hu = torch.tensor([-160.0, 40.0, 240.0]).view(1, 1, 1, 3)
    # 400 wide about 40 becomes 800 wide about 60: its ends -340 and 460 would be shown as -160 and 240
    torch.testing.assert_close(window(hu.clone(), 20.0, 2.0).flatten(), torch.tensor([-70.0, 30.0, 130.0]))
    torch.testing.assert_close(window(torch.tensor([-340.0, 460.0]), 20.0, 2.0), torch.tensor([-160.0, 240.0]))
    torch.testing.assert_close(window(hu.clone(), 0.0, 1.0), hu)


@settings(max_examples=40, deadline=None)
@given(points=st.lists(st.floats(0.01, 1), min_size=2, max_size=20), seed=st.integers(0, 1000))
def test_curves_keep_order_and_range(points: list[float], seed: int) -> None:
    curve = np.concatenate([[0], np.cumsum(points) / sum(points)])
    curve[-1] = 1.0
    image = torch.randn((1, 3, 5, 7), generator=torch.Generator().manual_seed(seed))
    out = intensity.histogram(image.clone(), *curve.tolist())
    order = image.flatten().argsort()
    assert out.flatten()[order].diff().min() >= -1e-5
    torch.testing.assert_close(torch.stack(torch.aminmax(out)), torch.stack(torch.aminmax(image)), rtol=0, atol=1e-5)
    low, high = image.min(), image.max()
    expected = np.interp(((image - low) / (high - low)).numpy(), np.linspace(0, 1, len(curve)), curve) * float(
        high - low
    ) + float(low)
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-5)


def test_a_straight_curve_changes_nothing() -> None:
    image = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(intensity.histogram(image.clone(), 0.0, 0.25, 0.5, 0.75, 1.0), image)
    torch.testing.assert_close(intensity.gamma(image.clone(), 1.0, True), image)
    air = torch.full((1, 4, 5, 6), -2.0)
    torch.testing.assert_close(intensity.histogram(air.clone(), 0.0, 0.9, 1.0), air)


def test_gamma_may_keep_the_range() -> None:
    image = torch.tensor([0.0, 1.0, 4.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(intensity.gamma(image, 2.0, True).flatten(), torch.tensor([0.0, 0.25, 4.0]))


def test_drawn_curves_rise() -> None:
    chosen = AugmentSettings(histogram_probability=1)
    for seed in range(100):
        ((name, curve),) = draw_item(chosen, 3, np.random.default_rng(seed)).changes
        assert name == "histogram" and len(curve) == 16 and curve[0] == 0 and curve[-1] == 1
        assert (np.diff(curve) >= 0).all() and max(abs(np.array(curve) - np.linspace(0, 1, 16))) > 0.01


def test_soft_kernels_have_less_noise_and_millimetres_become_voxels() -> None:
    chosen = AugmentSettings(ct_noise_probability=1, ct_noise_hu=(30, 30), ct_noise_mm=(0.4, 1.6))
    for seed in range(50):
        ((_, (sd, *widths, _)),) = draw_item(chosen, 3, np.random.default_rng(seed), spacing_mm=(5, 2, 0.5)).acquisition
        width_mm = widths[2] * 0.5
        assert widths == pytest.approx([width_mm / 5, width_mm / 2, width_mm / 0.5])
        assert sd == pytest.approx(30 * (0.4 / width_mm) ** 1.5) and sd <= 30


def test_thickness_is_in_millimetres_and_spares_two_dimensions() -> None:
    chosen = AugmentSettings(thickness_probability=1, thickness_mm=(3, 3))
    drawn = [draw_item(chosen, d, np.random.default_rng(0), spacing_mm=(s, 1, 1)).acquisition
             for d, s in ((3, 1.5), (3, 3), (3, 5), (2, 1.0))]  # fmt: skip
    assert drawn == [(("thickness", (2.0,)),), (), (), ()]


def test_a_scanner_works_in_hu_before_the_window() -> None:
    hu = torch.full((1, 2, 8, 8), 500.0)
    hu[:, 1] = -100

    def clipped(image: torch.Tensor) -> torch.Tensor:
        return image.clamp(0, 100) / 100

    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    thick = ItemParameters(acquisition=(("thickness", (2.0,)),))
    # 200 HU on average: clipped before averaging, it would have been 0.5
    assert (apply_item(thick, hu, labels, (2, 8, 8), clipped)[0] == 1).all()
    assert (apply_item(ItemParameters(), hu, labels, (2, 8, 8), clipped)[0].mean()) == 0.5
    with pytest.raises(AssertionError, match="about HU"):
        apply_item(thick, hu, labels, (2, 8, 8))
