"""What a mean over patients is worth: intervals, paired comparisons, effect sizes, agreement of volumes.

Comes in: numbers per case, NaN where a case has none. Goes out: values with 95 % intervals, p-values. Knows no files.
Resampling is by patient, never by scan: two scans of one patient are drawn together. Every draw is seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 2000
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its interval and the number of cases behind it; NaN where it cannot be told."""

    value: float
    low: float
    high: float
    n: int


def patient_weights(patients: Sequence[str], samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each case is drawn in each bootstrap sample: (samples, cases) float64.

    Patients are drawn with replacement, as many as there are; a case is drawn as often as its patient.
    """
    _, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = int(index.max()) + 1 if index.size else 0
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    weights: np.ndarray = draws[:, index].astype(np.float64)
    return weights


def bootstrap_means(values: np.ndarray, patients: Sequence[str], seed: int = SEED) -> list[Estimate]:
    """Means over cases with percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: (cases, columns); what is not finite is left out, column by column.
        patients: one name a case.
        seed: of the draws.

    Returns:
        One Estimate a column. With fewer than two patients an interval says nothing and is NaN.
    """
    values = np.asarray(values, np.float64)
    assert values.ndim == 2 and len(values) == len(patients), (values.shape, len(patients))
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)
    counts = finite.sum(axis=0)
    # a plain sum in case order, as the official scripts' means over cases
    means = np.array([_mean(values[finite[:, j], j]) for j in range(values.shape[1])])
    weights = patient_weights(patients, seed=seed)
    low, high = intervals(_divided(weights @ filled, weights @ finite))
    enough = np.array([len({p for p, f in zip(patients, column, strict=True) if f}) > 1 for column in finite.T], bool)
    low, high = np.where(enough, low, np.nan), np.where(enough, high, np.nan)
    return [Estimate(float(m), float(a), float(b), int(n)) for m, a, b, n in zip(means, low, high, counts, strict=True)]


def intervals(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals over axis 0; draws without a value are left out, columns without any are NaN."""
    draws = np.asarray(draws, np.float64)
    low, high = (np.full(draws.shape[1:], np.nan) for _ in range(2))
    some = np.isfinite(draws).any(axis=0)
    cuts = [50 * (1 - level), 50 * (1 + level)]
    if some.all() and np.isfinite(draws).all():
        low, high = np.percentile(draws, cuts, axis=0)
    elif some.any():
        kept = np.where(np.isfinite(draws), draws, np.nan)[:, some]
        low[some], high[some] = np.nanpercentile(kept, cuts, axis=0)
    return low, high


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")
