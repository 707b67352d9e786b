"""What a mean over patients is worth: intervals, paired comparisons, effect sizes, agreement of volumes.

Comes in: numbers per case, NaN where a case has none. Goes out: values with 95 % intervals, p-values. Knows no files.
Resampling is by patient, never by scan: two scans of one patient are drawn together. Every draw is seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

SAMPLES = 2000
SEED = 0
LEVEL = 0.95
EXACT = 50


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
    weights: np.ndarray = _draws(count, samples, seed)[:, index]
    return weights


@lru_cache(maxsize=4)
def _draws(count: int, samples: int, seed: int) -> np.ndarray:
    """How often each of ``count`` patients is drawn; kept, as a comparison of many metrics asks again and again."""
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    weights: np.ndarray = draws.astype(np.float64)
    weights.setflags(write=False)
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


@dataclass(frozen=True)
class Difference:
    """Second less first, paired by patient.

    Attributes:
        mean: mean difference, with its percentile bootstrap interval ``low`` to ``high``.
        p: two-sided Wilcoxon signed-rank; 1 if no patient differs.
        rank_biserial: -1 to 1, the share of rank sums for the second less that for the first.
        cohen_dz: mean difference in its own standard deviations; NaN if they do not vary.
        n: patients that have both values.
        sd: standard deviation of the patients' differences; NaN for fewer than two.
    """

    mean: float
    low: float
    high: float
    p: float
    rank_biserial: float
    cohen_dz: float
    n: int
    sd: float = float("nan")


def paired_difference(
    first: Sequence[float], second: Sequence[float], patients: Sequence[str], seed: int = SEED
) -> Difference:
    """Compare two methods on the same cases.

    Cases in which one of them has no value are left out. Several scans of one patient are averaged first, so that tests
    see independent pairs. Wilcoxon 1945; zeros are dropped as he did; matched rank-biserial: Kerby 2014.
    """
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    kept = np.isfinite(change)
    change = _by_patient(change[kept], [p for p, k in zip(patients, kept, strict=True) if k])
    nan = float("nan")
    if not change.size:
        return Difference(nan, nan, nan, nan, nan, nan, 0)
    estimate = bootstrap_means(change[:, None], [str(i) for i in range(change.size)], seed)[0]
    spread = float(change.std(ddof=1)) if change.size > 1 else 0.0
    # equal differences leave a spread of rounding errors, of which an effect size would be made of nothing
    dz = float(change.mean() / spread) if spread > 1e-12 * float(np.abs(change).max()) else nan
    moved = change[change != 0]
    ranks = stats.rankdata(np.abs(moved))
    biserial = float((ranks * np.sign(moved)).sum() / ranks.sum()) if moved.size else 0.0
    p = signed_rank_p(moved) if moved.size else 1.0
    sd = spread if change.size > 1 else nan
    return Difference(estimate.value, estimate.low, estimate.high, p, biserial, dz, int(change.size), sd)


def signed_rank_p(moved: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on differences that are not 0.

    Up to ``EXACT`` of them from the exact distribution over all signs, ties sharing the mean of their ranks (sums of
    twice the ranks are whole, so that counting is exact); beyond by the normal approximation, corrected for ties.
    """
    if len(moved) > EXACT:
        return float(stats.wilcoxon(moved, method="asymptotic").pvalue)
    twice = np.round(2 * stats.rankdata(np.abs(moved))).astype(int)
    ways = np.zeros(int(twice.sum()) + 1)
    ways[0] = 1
    for rank in twice.tolist():
        ways[rank:] += ways[:-rank].copy()
    seen = int(twice[moved > 0].sum())
    tail = min(ways[: seen + 1].sum(), ways[seen:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment (1979) for many comparisons; NaN stays NaN and counts as no comparison."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    index = np.flatnonzero(np.isfinite(p))
    order = index[np.argsort(p[index], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def non_inferior(difference: Difference, margin: float, higher_is_better: bool = True) -> bool:
    """Whether the second is at worst ``margin`` worse: its 95 % interval ends before that (one-sided 2.5 %)."""
    assert margin > 0, margin
    worst = difference.low if higher_is_better else -difference.high
    return bool(worst > -margin)


@dataclass(frozen=True)
class Agreement:
    """Bland and Altman's (1986) limits of agreement: prediction less truth.

    Attributes:
        bias: mean difference, with the 95 % interval ``bias_low`` to ``bias_high`` (Student).
        sd: standard deviation of the differences.
        low: bias - 1.96 sd, the lower limit of agreement.
        high: bias + 1.96 sd, the upper.
        limit_error: half the 95 % interval of either limit.
        n: patients.
    """

    bias: float
    bias_low: float
    bias_high: float
    sd: float
    low: float
    high: float
    limit_error: float
    n: int


def bland_altman(truth: Sequence[float], prediction: Sequence[float], patients: Sequence[str]) -> Agreement:
    """Agreement of two measurements of the same things; needs three patients, else NaN."""
    change = np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)
    kept = np.isfinite(change)
    change = _by_patient(change[kept], [p for p, k in zip(patients, kept, strict=True) if k])
    n, bias = change.size, _mean(change)
    if n < 3:
        return Agreement(bias, *(float("nan"),) * 6, n)
    sd = float(change.std(ddof=1))
    t = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    error = t * sd / np.sqrt(n)
    # variance of a limit: sd^2 (1 / n + z^2 / (2 (n - 1))), Bland and Altman 1999
    limit_error = float(t * sd * np.sqrt(1 / n + z**2 / (2 * (n - 1))))
    return Agreement(bias, bias - error, bias + error, sd, bias - z * sd, bias + z * sd, limit_error, n)


def _by_patient(values: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Mean over each patient's cases."""
    if not values.size:
        return values
    _, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    means: np.ndarray = np.bincount(index, values) / np.bincount(index)
    return means
