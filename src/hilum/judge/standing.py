"""Who comes first, and how firmly: ranks over cases, and over bootstraps of the patients.

Comes in: one number a method and case. Goes out: ranks by two schemes, and how they hold when patients are drawn anew.

* *aggregate, then rank*: methods are ranked by their means (KiTS19, LiTS, and KiTS21/23 by its own two means, see
  ``ranking.py``);
* *rank, then aggregate*: methods are ranked on each case, and the mean rank counts (BraTS, the Medical Segmentation
  Decathlon). A case with a tie shares the mean of its ranks.

Stability: Maier-Hein et al. 2018 (Nature Communications 9:5217), Wiesenfarth et al. 2021 (Scientific Reports 11:2369):
the ranking is made anew on bootstrap samples of the patients; told are how often each method is first, the interval of
its rank, and Kendall's tau of each sample's ranking with the one of all patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata

from hilum.judge.ranking import rank_teams
from hilum.judge.statistics import LEVEL, patient_weights

DRAWS = 1000


def standings(
    values: Mapping[str, Sequence[float]], patients: Sequence[str], higher_is_better: bool = True
) -> dict[str, Any]:
    """Both rankings of one metric, with their stability.

    Args:
        values: method -> one number a case; cases in which any method has none are left out.
        patients: one name a case.
        higher_is_better: else the lowest is first.

    Returns:
        ``{"n", "methods": [{"name", "mean", "rank", "mean_rank", "rank_of_ranks", "first", "rank_low", "rank_high"}],
        "kendall_tau": mean}``, best mean rank first; ``first`` is the share of samples in which a method's mean rank is
        the best (shared firsts count in full), the interval is of its rank by mean ranks. Empty without cases.
    """
    names = list(values)
    table = np.array([values[name] for name in names], np.float64)
    kept = np.asarray(np.isfinite(table).all(axis=0))
    table = table[:, kept] * (1 if higher_is_better else -1)
    if not table.size:
        return {}
    by_case = rankdata(-table, "average", axis=0)
    weights = patient_weights([p for p, k in zip(patients, kept, strict=True) if k], DRAWS)
    mean_ranks = by_case.mean(axis=1)
    final = rankdata(np.round(mean_ranks, 9), "min")
    drawn = np.round(weights @ by_case.T / weights.sum(axis=1, keepdims=True), 9)
    ranks = rankdata(drawn, "min", axis=1)
    cuts = np.percentile(ranks, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0, method="nearest")
    means = table.mean(axis=1) * (1 if higher_is_better else -1)
    by_mean = rankdata(-np.round(table.mean(axis=1), 9), "min")
    order = np.lexsort((by_mean, mean_ranks))
    return {
        "n": int(kept.sum()),
        "methods": [
            {
                "name": names[i],
                "mean": float(means[i]),
                "rank": int(by_mean[i]),
                "mean_rank": float(mean_ranks[i]),
                "rank_of_ranks": int(final[i]),
                "first": float((ranks[:, i] == 1).mean()),
                "rank_low": int(cuts[0, i]),
                "rank_high": int(cuts[1, i]),
            }
            for i in order
        ],
        "kendall_tau": _mean_tau(mean_ranks, drawn),
    }


def _mean_tau(all_cases: np.ndarray, drawn: np.ndarray) -> float:
    """Mean of Kendall's tau-b over the draws; NaN where everybody shares one rank."""
    unique, counts = np.unique(drawn, axis=0, return_counts=True)
    if len(all_cases) < 2 or np.ptp(all_cases) == 0:
        return float("nan")
    taus = np.array([kendalltau(all_cases, row).statistic if np.ptp(row) else np.nan for row in unique])
    some = np.isfinite(taus)
    return float((taus[some] * counts[some]).sum() / counts[some].sum()) if some.any() else float("nan")


def official_stability(tables: Mapping[str, np.ndarray], patients: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How firmly each team's rank by the KiTS procedure stands when patients are drawn anew.

    Args:
        tables: team -> (6, cases): three Dice, three surface Dice.
        patients: one name a case.

    Returns:
        team -> ``{"first": share of samples, "rank_low", "rank_high"}``.
    """
    weights = patient_weights(patients, DRAWS)
    share = weights / weights.sum(axis=1, keepdims=True)
    means = {team: share @ values.T for team, values in tables.items()}
    ranks: dict[str, list[int]] = {team: [] for team in tables}
    for draw in range(len(share)):
        for row in rank_teams({team: values[draw].tolist() for team, values in means.items()}):
            ranks[row.team].append(row.final_rank)
    firm = {}
    for team, found in ranks.items():
        cuts = np.percentile(found, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], method="nearest")
        firm[team] = {
            "first": float(np.mean(np.array(found) == 1)),
            "rank_low": int(cuts[0]),
            "rank_high": int(cuts[1]),
        }
    return firm
