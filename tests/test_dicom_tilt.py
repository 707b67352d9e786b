"""Straightening: a structure that stands upright in the patient stands upright in the array, at its place."""

import numpy as np
import pytest

from hilum.scans import read_scan
from making_dicom import make_series


def sampled(world_mm: np.ndarray) -> np.ndarray:
    """HU of a made-up patient: linear in x and y (LPS), so that linear interpolation is exact."""
    return -1000 + 4 * (world_mm[..., 0] + 10) + 8 * (world_mm[..., 1] + 60)


@pytest.mark.parametrize("degrees", [15, -10])
def test_a_linear_patient_is_recovered_exactly(tmp_path, degrees):
    step = np.array([0, 2.5 * np.tan(np.radians(degrees)), 2.5])
    origin, rows, columns, count = np.array([-10.0, -20, 30]), 24, 20, 6
    k, j, i = np.mgrid[:count, :rows, :columns]
    world = origin + k[..., None] * step + i[..., None] * (0.7, 0, 0) + j[..., None] * (0, 0.8, 0)
    make_series(tmp_path, np.round(sampled(world)), step=tuple(step))

    volume = read_scan(tmp_path, resample_tilt=True)

    assert volume.spacing_mm == pytest.approx((0.7, 0.8, 2.5), abs=1e-5)
    direction = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    indices = np.stack(np.mgrid[tuple(slice(n) for n in volume.shape)], -1)
    lps = volume.world(indices) * (-1, -1, 1)
    inside = np.zeros(volume.shape, bool)
    for k in range(count):  # well inside the slice's own field of view
        y = lps[:, :, k, 1] - (origin + k * step)[1]
        inside[:, :, k] = (y > 0.81) & (y < 0.8 * (rows - 1) - 0.81)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(volume.array[inside], sampled(lps)[inside], atol=1.01)
    # no slice lost a row: the grid grew by the whole drift
    assert volume.shape == (columns, rows + int(np.ceil(abs(step[1]) * (count - 1) / 0.8 - 1e-6)), count)
    assert (volume.array == -1024).any()


def test_a_straight_series_is_not_touched(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 16, 16))
    make_series(tmp_path, hu)
    volume = read_scan(tmp_path, resample_tilt=True)
    np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), hu)
    assert "resampled" not in volume.header
