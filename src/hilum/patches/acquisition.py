"""Another scanner: noise as a kernel makes it, thicker slices, another window.

Comes in: one image (C, D, H, W), float32, in HU, and the numbers that were drawn for it. Goes out: the image as such a
scanner or reader would have had it, still in HU. It knows no normalisation, so nothing has been clipped before.
All that is linear is a small matrix for each axis (``intensity.along_axes``), as in blur and low resolution.
"""

from __future__ import annotations

import numpy as np
import torch

from hilum.patches.intensity import Change, along_axes, beside

# Filtered back-projection takes low frequencies from the noise: a blur of twice the width is subtracted, nearly whole.
LOW_CUT = 0.8
# The middle of soft-tissue windows, the point that stays where it is when a window is only widened.
WINDOW_CENTRE_HU = 40.0


def ct_noise(image: torch.Tensor, sd_hu: float, *sigma_voxels_and_seed: float) -> torch.Tensor:
    """Correlated noise of this standard deviation at every voxel, edges included.

    In the slice it is white noise blurred by a kernel's width less ``LOW_CUT`` of the same blurred twice as widely: its
    power is low at low frequencies, peaks, and falls with the kernel (Riederer, Pelc and Chesler, Phys Med Biol
    1978;23:446-454). Along D it is blurred once, as overlapping slices are.

    Args:
        image: HU, (C, D, H, W); written into.
        sd_hu: standard deviation.
        sigma_voxels_and_seed: the kernel's width along D, H, W (0: independent), and the seed.
    """
    *sigma, seed = sigma_voxels_and_seed
    generator = torch.Generator(image.device).manual_seed(int(seed))
    white = torch.randn(image.shape, generator=generator, device=image.device)
    narrow, wide = ([gaussian_rows(n, k * s) for n, s in zip(image.shape[1:], sigma, strict=True)] for k in (1, 2))
    along_d = narrow[0] / np.sqrt((narrow[0] ** 2).sum(axis=1, keepdims=True))
    noise = along_axes(white, [along_d if sigma[0] > 0 else None, None, None])
    noise = along_axes(noise, [None, *narrow[1:]]) - LOW_CUT * along_axes(noise, [None, *wide[1:]])
    # the variance of a difference of two separable blurs is a sum of three separable terms, exact at the edges too
    terms = ((1.0, narrow, narrow), (-2 * LOW_CUT, narrow, wide), (LOW_CUT**2, wide, wide))
    variance = sum(k * np.multiply.outer((a[1] * b[1]).sum(axis=1), (a[2] * b[2]).sum(axis=1)) for k, a, b in terms)
    return image.addcmul_(noise, beside(image, np.asarray(sd_hu / np.sqrt(variance), np.float32)))


def thickness(image: torch.Tensor, voxels: float) -> torch.Tensor:
    """Slices of about this many voxels, averaged along D, and the way back between their centres; the mean stays.

    As many whole slices as fit best share the depth evenly. A thickness of one voxel or less changes nothing.
    """
    matrix = thick_matrix(image.shape[1], voxels)
    return image if matrix is None else along_axes(image, [matrix, None, None])


def window(image: torch.Tensor, shift_hu: float, width: float) -> torch.Tensor:
    """HU as a window would show them that lies ``shift_hu`` higher and is ``width`` times as wide."""
    return image.sub_(WINDOW_CENTRE_HU + shift_hu).mul_(1 / width).add_(WINDOW_CENTRE_HU)


# In the order in which they are applied: averaging thick slices also averages their noise.
ACQUISITION: dict[str, Change] = {"ct_noise": ct_noise, "thickness": thickness, "window": window}


def gaussian_rows(n: int, sigma: float) -> np.ndarray:
    """(n, n): each row a Gaussian of sum one, cut off at four standard deviations; the identity for 0."""
    if sigma <= 0:
        return np.eye(n, dtype=np.float32)
    distance = np.arange(n) - np.arange(n)[:, None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= 4 * sigma + 0.5)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def thick_matrix(n: int, voxels: float) -> np.ndarray | None:
    """(n, n): box averages over equal slices, then linear interpolation, itself averaged over each voxel.

    Averaging the interpolation over voxels, not sampling it at their centres, makes every column sum to one, so that
    the mean is kept for any thickness; rows sum to one as well, so that constants stay.
    """
    count = max(1, round(n / voxels)) if voxels > 1 else n
    if count >= n:
        return None
    thick = n / count
    borders = np.arange(n + 1, dtype=float)
    edges = np.arange(count + 1) * thick
    overlap = np.minimum(borders[1:], edges[1:, None]) - np.maximum(borders[:-1], edges[:-1, None])
    down = np.maximum(overlap, 0) / thick
    # the integral of each slice's hat function up to each border; slices beyond the ends stand for the last ones
    centres = (np.arange(-1, count + 1) + 0.5) * thick
    u = np.clip((borders[:, None] - centres) / thick, -1, 1)
    integral = thick * np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)
    hats = np.diff(integral, axis=0)
    hats[:, 1] += hats[:, 0]
    hats[:, -2] += hats[:, -1]
    return np.asarray(hats[:, 1:-1] @ down, np.float32)
