"""Array arithmetic that gives the same bits on every machine: + - * / and square roots, which IEEE 754 rounds exactly.

Comes in: float32 arrays. Goes out: float32 arrays. NumPy's own exp, cos and arctan2 differ in the last bit between
processors, and compiled filters between compilers; what is painted with them would differ by a HU here and there.
"""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def cosine(angle: np.ndarray) -> np.ndarray:
    """cos of radians, within 1e-4: folded to a quarter turn, then its Taylor series to the eighth power."""
    turns = angle * F(1 / (2 * math.pi))
    part = np.abs(turns - np.floor(turns + F(0.5)))  # 0 to half a turn
    flip = part > F(0.25)
    a = np.where(flip, F(0.5) - part, part) * F(2 * math.pi)
    a *= a
    value = 1 + a * (F(-1 / 2) + a * (F(1 / 24) + a * (F(-1 / 720) + a * F(1 / 40320))))
    folded: np.ndarray = np.where(flip, -value, value)
    return folded


def arctangent(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """arctan2(y, x) within 2e-4 rad: a minimax polynomial on the smaller ratio (Abramowitz and Stegun 1964, 4.4.49)."""
    ax, ay = np.abs(x), np.abs(y)
    t = np.minimum(ax, ay) / np.maximum(np.maximum(ax, ay), F(1e-20))
    s = t * t
    r = t * (F(0.9998660) + s * (F(-0.3302995) + s * (F(0.1801410) + s * (F(-0.0851330) + s * F(0.0208351)))))
    r = np.where(ay > ax, F(math.pi / 2) - r, r)
    r = np.where(x < 0, F(math.pi) - r, r)
    angle: np.ndarray = np.where(y < 0, -r, r)
    return angle


def bell(x: np.ndarray) -> np.ndarray:
    """A bell of height 1 and half width about 0.64: 1 / (1 + x^2)^2, in place of exp(-x^2)."""
    d = 1 + x * x
    value: np.ndarray = 1 / (d * d)
    return value


def gaussian_weights(sigma: float) -> list[float]:
    """Weights of a Gaussian at 0, 1, 2 ... voxels, one side, adding up to one; rounded so that all machines agree."""
    if sigma < 0.2:
        return [1.0]
    reach = max(1, math.ceil(3 * sigma))
    raw = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    total = raw[0] + 2 * sum(raw[1:])
    return [round(w / total * 65536) / 65536 for w in raw]


def blur(plane: np.ndarray, sigma_y: float, sigma_x: float) -> np.ndarray:
    """Gaussian blur of a (Y, X) float32 plane; edges repeat. Spreads in voxels."""
    for axis, sigma in ((0, sigma_y), (1, sigma_x)):
        weights = gaussian_weights(sigma)
        if len(weights) == 1:
            continue
        reach = len(weights) - 1
        padded = np.pad(plane, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        out = _shifted(padded, axis, reach, plane.shape) * F(weights[0])
        for k in range(1, reach + 1):
            both = _shifted(padded, axis, reach - k, plane.shape) + _shifted(padded, axis, reach + k, plane.shape)
            out += both * F(weights[k])
        plane = out
    return plane


def _shifted(padded: np.ndarray, axis: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
    view: np.ndarray = padded[start : start + shape[0]] if axis == 0 else padded[:, start : start + shape[1]]
    return view


def gain(sigma_y: float, sigma_x: float) -> float:
    """By how much ``blur`` shrinks the spread of white noise."""
    value = 1.0
    for sigma in (sigma_y, sigma_x):
        w = gaussian_weights(sigma)
        value *= w[0] ** 2 + 2 * sum(v * v for v in w[1:])
    return math.sqrt(value)
