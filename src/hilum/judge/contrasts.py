"""Methods against each other, number by number: what ``compare`` says of each region and metric.

Comes in: tables of scores with the cases they share. Goes out: rows of plain numbers, one for every two methods, region
and metric, over all cases and within subgroups. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hilum.judge.power import patients_needed, smallest_difference
from hilum.judge.statistics import Difference, holm, non_inferior, paired_difference
from hilum.judge.subgroups import Group

ALPHA = 0.05
IN_GROUPS = ("dice", "Dice", "surface_dice", "nsd_2mm", "dice_per_case", "composite", "lesion_f1", "lesion_sensitivity")
# sizes and raw counts describe a case, not a method
_NO_MERIT = ("TP", "FP", "FN", "TN", "n_pred", "n_ref", "I", "S", "lesions_gt", "lesions_pred")
_NO_MERIT_PARTS = ("volume_gt", "volume_pred", "surface_area", "_TP", "_FP", "_FN")
# signed errors: nought is best, so that more is neither better nor worse
_SIGNED = ("volume_error_ml", "relative_volume_error", "rvd", "tumor_burden_diff", "tumor_burden_max")
_LOWER = ("voe", "assd", "rmsd", "msd", "lesions_missed", "lesions_invented", "tumor_burden_rmse")


@dataclass(frozen=True)
class Field:
    """What is compared.

    Attributes:
        tables: method -> its ``scores.json``.
        cases: that all of them have.
        patients: one name a case.
    """

    tables: Mapping[str, Mapping[str, Any]]
    cases: Sequence[str]
    patients: Sequence[str]

    def columns(self) -> list[tuple[str, str]]:
        """Region and metric of what describes a method."""
        first = next(iter(self.tables.values()))
        return list(
            dict.fromkeys(
                (region, metric)
                for case in self.cases
                for region, metrics in first["cases"][case].items()
                for metric in metrics
                if _has_merit(metric)
            )
        )

    def column(self, method: str, region: str, metric: str) -> np.ndarray:
        """(cases,) values of one method, NaN where it has none."""
        rows = self.tables[method]["cases"]
        return np.array([_number(rows[case].get(region, {}).get(metric)) for case in self.cases], np.float64)

    def within(self, cases: Sequence[str]) -> Field:
        """The same methods on some of the cases."""
        kept = set(cases)
        pairs = [(case, patient) for case, patient in zip(self.cases, self.patients, strict=True) if case in kept]
        return Field(self.tables, [case for case, _ in pairs], [patient for _, patient in pairs])


def compared(field: Field, margins: Mapping[str, float], claims: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row for each two methods, region and metric; Holm over all rows of a metric."""
    rows = []
    for first, second in combinations(field.tables, 2):
        for region, metric in field.columns():
            row, found, sd = _row(field, first, second, region, metric)
            row |= {"smallest_difference": smallest_difference(found.n, sd), **_needed(found.mean, sd, found.n)}
            if metric in claims:
                row |= {f"claim_{name}": n for name, n in _needed(claims[metric], sd, found.n).items()}
                row["claim"] = claims[metric]
            if metric in margins:
                row |= {"margin": margins[metric], "non_inferior": _not_worse(found, metric, margins[metric])}
            rows.append(row)
    _correct(rows, lambda row: row["metric"])
    return rows


def compared_in_groups(field: Field, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The same within each group, for the telling metrics; Holm over all rows of a metric and column of the table."""
    rows = []
    for group in groups:
        part = field.within(group.cases)
        for first, second in combinations(field.tables, 2):
            for region, metric in part.columns():
                if metric in IN_GROUPS:
                    row, _, _ = _row(part, first, second, region, metric)
                    rows.append({"column": group.column, "group": group.name, "cases": len(part.cases), **row})
    _correct(rows, lambda row: (row["column"], row["metric"]))
    return rows


def better(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 if it can lie on either side of its best or says nothing."""
    if metric in _SIGNED or not _has_merit(metric):
        return 0
    return -1 if metric in _LOWER or metric.endswith("_mm") else 1


def _has_merit(metric: str) -> bool:
    return metric not in _NO_MERIT and not any(part in f"_{metric}" for part in _NO_MERIT_PARTS)


def _row(field: Field, first: str, second: str, region: str, metric: str) -> tuple[dict[str, Any], Difference, float]:
    one, two = (field.column(name, region, metric) for name in (first, second))
    found = paired_difference(one.tolist(), two.tolist(), field.patients)
    both = np.isfinite(one) & np.isfinite(two)
    means = [float(values[both].mean()) if both.any() else float("nan") for values in (one, two)]
    row: dict[str, Any] = {"first": first, "second": second, "region": region, "metric": metric}
    row |= {"first_mean": means[0], "second_mean": means[1], "difference": found.mean}
    row |= {"low": found.low, "high": found.high, "p": found.p, "p_holm": float("nan")}
    row |= {"rank_biserial": found.rank_biserial, "cohen_dz": found.cohen_dz, "n": found.n}
    return row, found, found.sd


def _needed(difference: float, sd: float, n: int) -> dict[str, int | None]:
    whole = patients_needed(difference, sd)
    return {"patients_needed": whole, "more_patients": None if whole is None else max(0, whole - n)}


def _correct(rows: Sequence[dict[str, Any]], family_of: Callable[[dict[str, Any]], Any]) -> None:
    """Holm's p and the verdict, family by family."""
    for family in dict.fromkeys(family_of(row) for row in rows):
        members = [row for row in rows if family_of(row) == family]
        for row, p in zip(members, holm([row["p"] for row in members]), strict=True):
            row["p_holm"] = float(p)
            row["better"] = _verdict(row)


def _not_worse(found: Difference, metric: str, margin: float) -> bool | None:
    direction = better(metric)
    return non_inferior(found, margin, direction > 0) if direction and found.n > 1 else None


def _verdict(row: Mapping[str, Any]) -> str:
    """Which one is better, where both the interval and the corrected test say so; empty where they do not."""
    direction = better(row["metric"])
    if not direction or not row["p_holm"] < ALPHA or not (row["low"] > 0 or row["high"] < 0):
        return ""
    return str(row["second"] if row["difference"] * direction > 0 else row["first"])


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
