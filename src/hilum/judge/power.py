"""How many patients it takes to show a difference.

Comes in: the spread of paired differences, and a difference. Goes out: how many patients a two-sided test at 5 % needs
to show it four times out of five. The number is the paired t-test's (Student's t, iterated), divided by 3 / pi, the
efficiency of Wilcoxon's signed-rank test on normal differences (Lehmann 1975), as that is the test made here. It holds
for patients like those seen, and a spread from few patients is itself uncertain.
"""

from __future__ import annotations

import math

from scipy import stats

ALPHA = 0.05
POWER = 0.8
EFFICIENCY = 3 / math.pi
MOST = 10_000_000


def patients_needed(difference: float, sd: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Patients that a paired comparison needs to show a mean difference.

    Args:
        difference: the true mean difference; its sign does not matter.
        sd: standard deviation of the differences of single patients.
        alpha: two-sided level.
        power: chance to show it.

    Returns:
        At least 6 (with fewer no signed-rank test can reach 5 %); None where it cannot be told: no difference, no
        spread known, or more than ten million.
    """
    if not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0 or sd < 0:
        return None
    ratio = (sd / abs(difference)) ** 2
    n = ratio * (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) ** 2
    for _ in range(20):  # quantiles of t depend on n
        if n > MOST:
            return None
        degrees = max(n - 1, 1.0)
        n = ratio * (stats.t.ppf(1 - alpha / 2, degrees) + stats.t.ppf(power, degrees)) ** 2
        n = max(n, 2.0)
    return max(6, math.ceil(float(n) / EFFICIENCY))


def smallest_difference(n: int, sd: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The mean difference that ``n`` patients show with that power; NaN for fewer than 3."""
    if n < 3 or not math.isfinite(sd):
        return float("nan")
    seen = n * EFFICIENCY
    degrees = max(seen - 1, 1.0)
    return float(sd * (stats.t.ppf(1 - alpha / 2, degrees) + stats.t.ppf(power, degrees)) / math.sqrt(seen))
