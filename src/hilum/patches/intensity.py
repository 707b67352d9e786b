"""Changes of grey values: noise, blur, brightness, contrast, low resolution, gamma, a random curve.

Comes in: one image (C, D, H, W), float32, normalised, and the numbers that were drawn for it. Goes out: the changed
image; most functions write into the one they were given. Nothing here draws numbers, except noise from its own seed,
and nothing waits for a GPU: statistics stay tensors.

Blur and low resolution are linear and separable, so each is one small matrix per axis (``along_axes``): dense
products are what both CPUs and GPUs do best, and the edges are part of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

Change = Callable[..., torch.Tensor]


def noise(image: torch.Tensor, sd: float, seed: int) -> torch.Tensor:
    """Gaussian noise of this standard deviation; the same for the same seed on the same kind of device."""
    generator = torch.Generator(image.device).manual_seed(seed)
    return image.add_(torch.randn(image.shape, generator=generator, device=image.device), alpha=sd)


def blur(image: torch.Tensor, *sigma_voxels: float) -> torch.Tensor:
    """Gaussian blur, one standard deviation in voxels for each of D, H, W (0: not along that axis)."""
    return along_axes(image, [_blur_matrix(n, s) for n, s in zip(image.shape[1:], sigma_voxels, strict=True)])


def brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply the normalised values."""
    return image.mul_(factor)


def contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Stretch about the mean, values kept within the range that the image had."""
    low, high = torch.aminmax(image)
    mean = image.mean()
    return image.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)


def low_resolution(image: torch.Tensor, *factor: float) -> torch.Tensor:
    """What is left after nearest-neighbour sampling to ``factor`` times the voxels along D, H, W and linear return."""
    return along_axes(image, [_coarse_matrix(n, f) for n, f in zip(image.shape[1:], factor, strict=True)])


def gamma(image: torch.Tensor, exponent: float, keep_range: bool = False) -> torch.Tensor:
    """Raise the values, scaled to 0..1, to a power; mean and standard deviation (or the range) stay what they were."""
    low, high = torch.aminmax(image)
    if keep_range:
        width = (high - low).clamp_min(1e-7)
        return image.sub_(low).mul_(1 / width).pow_(exponent).mul_(width).add_(low)
    mean, sd = image.mean(), image.std(correction=0)
    image.sub_(low).mul_(1 / (high - low).clamp_min(1e-7)).pow_(exponent)
    # scaling back to the old range cancels out against restoring mean and standard deviation
    stretch = sd / image.std(correction=0).clamp_min(1e-7)
    return image.mul_(stretch).add_(mean - image.mean())


def inverted_gamma(image: torch.Tensor, exponent: float, keep_range: bool = False) -> torch.Tensor:
    """``gamma`` of the negative image: changes the dark end as ``gamma`` changes the bright one."""
    return gamma(image.neg_(), exponent, keep_range).neg_()


def histogram(image: torch.Tensor, *curve: float) -> torch.Tensor:
    """Pass the values through a curve: its points are spread evenly over the image's range, 0 and 1 being its ends."""
    low, high = torch.aminmax(image)
    width = (high - low).clamp_min(1e-7)
    points = beside(image, np.array(curve, np.float32))
    place = image.sub_(low).mul_((len(curve) - 1) / width)
    below = place.to(torch.int32).clamp_(0, len(curve) - 2)
    place.sub_(below)
    # value and slope of each section in small tables, one look-up each
    rise = points.diff()
    base, slope = (table.index_select(0, below.reshape(-1)).view(image.shape) for table in (points[:-1], rise))
    return base.addcmul_(place, slope).mul_(width).add_(low)


# In the order in which they are applied (nnU-Net v2's order, then those that it does not have).
CHANGES: dict[str, Change] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "low_resolution": low_resolution,
    "inverted_gamma": inverted_gamma,
    "gamma": gamma,
    "histogram": histogram,
}


def along_axes(image: torch.Tensor, matrices: Sequence[np.ndarray | None]) -> torch.Tensor:
    """Multiply the axes D, H, W of an image (C, D, H, W) by a square matrix each; None leaves an axis as it is."""
    d, h, w = (None if m is None else beside(image, m) for m in matrices)
    # autocast would make the products bf16, which costs three digits of the image
    with torch.autocast(image.device.type, enabled=False):
        if w is not None:
            image = image @ w.T
        if h is not None:
            image = h @ image
        if d is not None:
            image = (d @ image.flatten(2)).view(image.shape)
    return image


def beside(image: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """A small array as a tensor of the image's type on its device, without waiting for what the device is doing."""
    return torch.from_numpy(array).to(image.device, image.dtype, non_blocking=True)


def _blur_matrix(n: int, sigma: float) -> np.ndarray | None:
    """(n, n): rows are Gaussians cut off at four standard deviations, each of sum one (so nothing darkens at edges)."""
    if n == 1 or sigma <= 0:
        return None
    distance = np.arange(n) - np.arange(n)[:, None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= 4 * sigma + 0.5)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _coarse_matrix(n: int, factor: float) -> np.ndarray | None:
    """(n, n): picks ``round(factor * n)`` voxels, nearest to the coarse centres, and interpolates between them."""
    coarse = max(1, round(n * factor))
    if coarse >= n:
        return None
    picked = np.minimum(((np.arange(coarse) + 0.5) * n / coarse).astype(int), n - 1)
    place = np.clip((np.arange(n) + 0.5) * coarse / n - 0.5, 0, coarse - 1)
    below = np.minimum(place.astype(int), max(coarse - 2, 0))
    above = np.minimum(below + 1, coarse - 1)
    matrix = np.zeros((n, n), np.float32)
    np.add.at(matrix, (np.arange(n), picked[below]), 1 - (place - below))
    np.add.at(matrix, (np.arange(n), picked[above]), place - below)
    return matrix
