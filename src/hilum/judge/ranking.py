"""Ranking teams as KiTS21 and KiTS23 do.

Comes in: each team's six means (Dice of the three regions, surface Dice of the three regions). Goes out: the table of
ranks. Source: neheller/kits23 ``kits23/evaluation/ranking.py`` (c1088353), the same in KiTS21.

Aggregate, rank, aggregate: the mean of the three Dice and the mean of the three surface Dice are ranked (1 is best,
equal values share the lower number), the mean of both ranks is ranked again, and a tie is broken by tumour Dice. Teams
that tie there too keep their common rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hilum.errors import UsageError
from hilum.judge.kits import REGIONS

DECIMALS = 8  # the table that the official script ranks has been written with so many, which makes near-ties ties


@dataclass(frozen=True)
class Standing:
    """One row of the table."""

    team: str
    final_rank: int
    mean_rank: float
    mean_dice: float
    mean_surface_dice: float
    tumor_dice: float


def rank_teams(teams: Mapping[str, Sequence[float]]) -> list[Standing]:
    """The table, best first.

    Args:
        teams: name -> Dice of kidney and masses, masses, tumour, then surface Dice of the same; no NaN.

    Raises:
        UsageError: not six finite numbers a team.
    """
    names = list(teams)
    for name in names:
        if len(teams[name]) != 2 * len(REGIONS) or not np.isfinite(teams[name]).all():
            raise UsageError(
                f"team {name!r} has {list(teams[name])}", wanted="six means: three Dice, three surface Dice"
            )
    if not names:
        return []
    table = np.round(np.array([teams[name] for name in names], np.float64), DECIMALS)
    dice, surface, tumor = table[:, :3].mean(axis=1), table[:, 3:].mean(axis=1), table[:, 2]
    mean_rank = (rankdata(-dice, "min") + rankdata(-surface, "min")) / 2
    final = rankdata(mean_rank, "min").astype(int)
    for rank in np.unique(final):
        tied = np.flatnonzero(final == rank)
        final[tied] = rank - 1 + rankdata(-tumor[tied], "min").astype(int)
    return [
        Standing(names[i], int(final[i]), float(mean_rank[i]), float(dice[i]), float(surface[i]), float(tumor[i]))
        for i in np.argsort(final, kind="stable")
    ]


def kits_means(scores: Mapping[str, Any]) -> list[float]:
    """The six numbers of a team out of its ``scores.json`` (protocol kits21 or kits23)."""
    mean = scores["mean"]
    return [float(mean[region][metric]["value"]) for metric in ("dice", "surface_dice") for region in REGIONS]
