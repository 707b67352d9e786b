"""What a scanner makes of a patient: the voxel grid, blur, noise, streaks, padding, whole HU.

Comes in: the painted HU, slice by slice. Goes out: int16 HU. It knows no anatomy.

Noise is coloured as filtered back-projection colours it: its power is low at low frequencies, peaks in the middle and
falls with the kernel's cut-off (Riederer, Pelc and Chesler, Phys Med Biol 1978;23:446-454). Here a difference of two
Gaussian blurs of white noise stands for ramp and kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hilum.errors import UsageError
from hilum.phantom.exact import blur, gain, gaussian_weights
from hilum.volume import Grid

F = np.float32
HU_LOW, HU_HIGH = -1024, 3071  # 12 bits, as most scanners store


@dataclass(frozen=True)
class Scanner:
    """How a patient was scanned.

    Attributes:
        blur_mm: spread (sigma) of the point spread function in the slice; a sharp kernel has little.
        slice_blur: the share of a slice that its neighbours on either side give.
        noise_hu: spread of the noise in 1 x 1 x 1 mm voxels; larger voxels average it. It follows dose and kernel.
        noise_mm: how far noise is correlated in the slice (sigma).
        offset_mm: how far the patient lies off the centre (x, y).
        streaks_hu: spread of the streaks along the longest paths through the patient; 0 for none.
        padding_hu: value outside the circle of reconstruction; None if the square is filled.
    """

    blur_mm: float
    slice_blur: float
    noise_hu: float
    noise_mm: float
    offset_mm: tuple[float, float]
    streaks_hu: float = 0.0
    padding_hu: int | None = None

    def noise_spread(self, spacing_mm: tuple[float, float, float]) -> float:
        """Noise (HU) in voxels of this size; kernels and dose keep it between 4 and 45 HU in practice."""
        size = float(np.prod(spacing_mm))
        return float(np.clip(self.noise_hu * size**-0.35, 4.0, 45.0))


def draw_scanner(rng: np.random.Generator, *, plain: bool = False, wide: bool = False) -> Scanner:
    """A scanner of usual sharpness and dose.

    Args:
        rng: random numbers.
        plain: neither streaks nor a circle of reconstruction.
        wide: noise and sharpness beyond the usual, for randomised appearance.
    """
    u = rng.uniform
    sharp = u()
    noise = u(12, 24) * (1 + 0.9 * sharp**2)
    if wide:
        noise *= u(0.4, 1.9)
    streaks = u(4, 14) if u() < 0.2 else 0.0
    padding = (-1024, -1024, -2000, -2048, -3024)[int(u(0, 5))] if u() < 0.45 else None
    return Scanner(
        (u(0.35, 1.3) if wide else 0.85 - 0.4 * sharp), u(0.04, 0.12), noise, 0.62 - 0.27 * sharp, (u(-8, 8), u(-6, 6)),
        0.0 if plain else streaks, None if plain else padding,
    )  # fmt: skip


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
    affine[:3, 3] = np.round(np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2), 3)
    return Grid(shape, affine)


def acquire(
    planes: Iterable[np.ndarray], spacing_mm: tuple[float, float, float], scanner: Scanner, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Scan slice by slice: (Y, X) float32 in, (Y, X) int16 out, from the feet up; three slices are held at a time.

    Args:
        planes: painted HU.
        spacing_mm: between columns, rows, slices (x, y, z).
        scanner: how it is scanned.
        rng: random numbers for the noise.
    """
    dx, dy, _ = spacing_mm
    noise_hu = scanner.noise_spread(spacing_mm)
    inner = (scanner.noise_mm / dy, scanner.noise_mm / dx)
    outer = (max(1.0, 3 * inner[0]), max(1.0, 3 * inner[1]))
    scale = _band_gain(inner, outer)
    before: np.ndarray | None = None
    outside: np.ndarray | None = None
    for plane in _profiled(planes, scanner.slice_blur):
        white = rng.standard_normal(plane.shape, dtype=np.float32)
        fine = blur(white, *inner)
        noise: np.ndarray = (fine - blur(fine, *outer) * F(0.85)) * F(noise_hu / scale)
        if before is not None:  # neighbouring slices share some of their projections
            noise = noise * F(0.954) + before * F(0.3)
        before = noise
        if scanner.streaks_hu > 0:
            noise = noise + _streaks(plane, scanner.streaks_hu, dx, rng)
        seen = np.rint(blur(plane, scanner.blur_mm / dy, scanner.blur_mm / dx) + noise)
        image: np.ndarray = np.clip(seen, HU_LOW, HU_HIGH).astype(np.int16)
        if scanner.padding_hu is not None:
            if outside is None:
                outside = _beyond_circle(plane.shape, (dx, dy))
            image[outside] = scanner.padding_hu
        yield image


def _profiled(planes: Iterable[np.ndarray], share: float) -> Iterator[np.ndarray]:
    """Each slice with its share of both neighbours: the slice profile."""
    before: np.ndarray | None = None
    here: np.ndarray | None = None
    for after in planes:
        if here is not None:
            yield here * F(1 - 2 * share) + ((here if before is None else before) + after) * F(share)
        before, here = here, after
    if here is not None:
        yield here * F(1 - share) + (here if before is None else before) * F(share)


def _band_gain(inner: tuple[float, float], outer: tuple[float, float]) -> float:
    """Spread of ``fine - 0.85 * blur(fine)`` for white noise of spread one, from the filters' own weights."""
    fine, both, mixed = 1.0, 1.0, 1.0
    for one, two in zip(inner, outer, strict=True):
        a = _both_sides(one)
        b = np.convolve(a, _both_sides(two))
        side = (len(b) - len(a)) // 2
        fine *= float((a * a).sum())
        both *= float((b * b).sum())
        mixed *= float((a * b[side : side + len(a)]).sum())
    return round(float(np.sqrt(fine + 0.85**2 * both - 2 * 0.85 * mixed)), 6)


def _both_sides(sigma: float) -> np.ndarray:
    """The whole filter of which ``gaussian_weights`` gives one side."""
    side = gaussian_weights(sigma)
    return np.array(side[:0:-1] + side)


def _streaks(plane: np.ndarray, spread_hu: float, dx: float, rng: np.random.Generator) -> np.ndarray:
    """Photon starvation: streaks along the rows, strongest where the path through the patient is longest."""
    rows = np.maximum(plane + F(1000), 0).astype(np.float64).mean(axis=1)
    path: np.ndarray = np.round(rows * plane.shape[1] * dx / 1000).astype(np.float32)  # about mm of water
    weight = np.clip((path - F(250)) / F(150), 0, 1)
    lines = blur(rng.standard_normal(plane.shape, dtype=np.float32), 0.0, 12.0)
    streaks: np.ndarray = lines * (weight * F(spread_hu / gain(0.0, 12.0)))[:, None]
    return streaks


def _beyond_circle(shape: tuple[int, ...], spacing: tuple[float, float]) -> np.ndarray:
    """Outside the circle of reconstruction, which touches the image's edges."""
    y = (np.arange(shape[0]) - (shape[0] - 1) / 2) * spacing[1]
    x = (np.arange(shape[1]) - (shape[1] - 1) / 2) * spacing[0]
    radius = max(shape[0] * spacing[1], shape[1] * spacing[0]) / 2
    beyond: np.ndarray = y[:, None] ** 2 + x[None, :] ** 2 > radius**2
    return beyond
