"""What a scanner makes of a patient: the voxel grid, blur, noise, whole HU.

Comes in: the painted HU, float32 (Z, Y, X). Goes out: int16 HU of the same shape. It knows no anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from hilum.errors import UsageError
from hilum.volume import Grid

HU_LOW, HU_HIGH = -1024, 3071  # 12 bits, as most scanners store


@dataclass(frozen=True)
class Scanner:
    """How a patient was scanned.

    Attributes:
        blur_mm: spread (sigma) of the point spread function in the slice.
        slice_blur: the same along the table, as a share of the slice spacing.
        noise_hu: spread of the noise in 1 x 1 x 1 mm voxels; larger voxels average it.
        noise_mm: how far noise is correlated in the slice (sigma).
        offset_mm: how far the patient lies off the centre (x, y).
    """

    blur_mm: float
    slice_blur: float
    noise_hu: float
    noise_mm: float
    offset_mm: tuple[float, float]

    def noise_spread(self, spacing_mm: tuple[float, float, float]) -> float:
        """Noise (HU) in voxels of this size; kernels and dose keep it between 4 and 35 HU in practice."""
        size = float(np.prod(spacing_mm))
        return float(np.clip(self.noise_hu * size**-0.35, 4.0, 35.0))


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A scanner of usual sharpness and dose."""
    u = rng.uniform
    return Scanner(u(0.5, 0.8), u(0.3, 0.45), u(16, 34), u(0.5, 0.8), (u(-8, 8), u(-6, 6)))


def make_grid(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], centre_mm: tuple[float, ...]
) -> Grid:
    """A grid in the axis order of files made from DICOM: "LPS", centred on a point.

    Args:
        shape: columns, rows, slices.
        spacing_mm: between columns, rows, slices.
        centre_mm: world position (RAS+) of the middle.
    """
    if len(shape) != 3 or min(shape) < 8 or len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise UsageError(
            f"shape {tuple(shape)} and spacing {tuple(spacing_mm)} mm",
            wanted="three counts of at least 8 and three spacings above 0",
        )
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def acquire(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """Blur, add noise, round: (Z, Y, X) float32 to int16. ``hu`` is overwritten.

    Args:
        hu: painted HU.
        spacing_mm: between columns, rows, slices (x, y, z).
        scanner: how it is scanned.
        rng: random numbers for the noise, drawn slice by slice from the feet up.
    """
    dx, dy, _ = spacing_mm
    if len(hu) > 1:
        gaussian_filter1d(hu, scanner.slice_blur, axis=0, output=hu, mode="nearest")
    noise_hu = scanner.noise_spread(spacing_mm)
    result = np.empty(hu.shape, np.int16)
    for k, plane in enumerate(hu):
        for axis, step in ((0, dy), (1, dx)):
            gaussian_filter1d(plane, scanner.blur_mm / step, axis=axis, output=plane, mode="nearest")
        noise = rng.standard_normal(plane.shape, dtype=np.float32)
        for axis, step in ((0, dy), (1, dx)):
            if scanner.noise_mm / step > 0.25:
                noise = gaussian_filter1d(noise, scanner.noise_mm / step, axis=axis, mode="wrap")
        noise *= np.float32(noise_hu / max(float(noise.std()), 1e-6))
        # streaks from dense bone are left out; noise in air is clipped by the lowest HU as in real scans
        result[k] = np.clip(np.rint(plane + noise), HU_LOW, HU_HIGH)
    return result
