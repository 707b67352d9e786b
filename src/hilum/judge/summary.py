"""From scored cases to the tables that people read: means, pooled values, intervals, warnings, CSV.

Comes in: ``CaseScore`` by case name. Goes out: what ``scores.json`` and ``scores.csv`` hold. Knows no files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hilum.files import plain
from hilum.judge.audit import audit
from hilum.judge.confidence import confidence_table
from hilum.judge.overlap import WHOLE_ARRAY
from hilum.judge.scoring import CaseScore, Protocol, Values
from hilum.judge.statistics import (
    LEVEL,
    SAMPLES,
    SEED,
    Estimate,
    bland_altman,
    bootstrap_means,
    intervals,
    patient_weights,
)
from hilum.labels import LabelScheme


def summarise(
    scores: Mapping[str, CaseScore],
    protocol: Protocol,
    scheme: LabelScheme,
    warnings: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    trained_on: Collection[str] = (),
    claimed: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """``scores.json`` from scored cases: means and pooled values with 95 % bootstrap intervals by patient."""
    names = sorted(scores)
    groups = [(patients or {}).get(name, name) for name in names]
    reasons = {f"{name}/{key}": text for name in names for key, text in scores[name].reasons.items()}
    mean = _means([scores[name].values for name in names], groups)
    pooled = _pooled([scores[name] for name in names], groups, protocol)
    told = [*warnings, *_gathered(scores)]
    told += _empty_regions(scores) + _left_out(mean, len(names))
    for kind, estimates in (("mean", mean), ("pooled", pooled)):
        for region, metrics in estimates.items():
            for metric, estimate in metrics.items():
                if not np.isfinite(estimate.value):
                    reasons[f"{kind}/{region}/{metric}"] = "no case has a value"
    if len(set(groups)) == 1:
        told.append("one patient only: intervals are null, there is nothing to resample")
    result = {
        "format": 1,
        "protocol": protocol.name,
        "about": protocol.about,
        "empty_policy": protocol.empty_policy,
        "scheme": scheme.name,
        "tn_counted_in": WHOLE_ARRAY,
        "intervals": {"level": LEVEL, "method": "percentile bootstrap by patient", "samples": SAMPLES, "seed": SEED},
        "patients": dict(zip(names, groups, strict=True)) if patients else {},
        "cases": {name: scores[name].values for name in names},
        "mean": _written(mean),
        "pooled": _written(pooled),
        "volumes_ml": {name: scores[name].volumes_ml for name in names},
        "volume_agreement": _agreement([scores[name].volumes_ml for name in names], groups),
        "confidence": _confidence(scores, names, groups, scheme),
        "lesions": {name: scores[name].lesions for name in names if scores[name].lesions},
        "audit": audit(scores, scheme, patients, trained_on, claimed),
        "reasons": reasons,
        "warnings": told,
        "failures": dict(failures or {}),
    }
    table: dict[str, Any] = plain(result)
    return table


def _means(values: Sequence[Values], patients: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    columns = list(dict.fromkeys((region, metric) for case in values for region in case for metric in case[region]))
    if not columns:
        return {}
    table = np.array([[case.get(r, {}).get(m, np.nan) for r, m in columns] for case in values], np.float64)
    means: dict[str, dict[str, Estimate]] = {}
    for (region, metric), estimate in zip(columns, bootstrap_means(table, patients), strict=True):
        means.setdefault(region, {})[metric] = estimate
    return means


def _pooled(scores: Sequence[CaseScore], patients: Sequence[str], protocol: Protocol) -> dict[str, dict[str, Estimate]]:
    """Pooled values of all cases, and intervals from the pooled values of resampled patients."""
    if protocol.pool is None or not scores:
        return {}
    weights = np.vstack([np.ones(len(scores)), patient_weights(patients)])
    sums = {name: weights @ np.array([score.sums[name] for score in scores]) for name in scores[0].sums}
    peaks = {
        name: np.where(weights > 0, [score.peaks.get(name, -np.inf) for score in scores], -np.inf).max(axis=1)
        for name in dict.fromkeys(name for score in scores for name in score.peaks)
    }
    enough = len(set(patients)) > 1
    cases = int(sums["cases"][0]) if "cases" in sums else len(scores)
    pooled: dict[str, dict[str, Estimate]] = {}
    for region, metrics in protocol.pool(sums, peaks).items():
        for metric, draws in metrics.items():
            low, high = intervals(draws[1:, None]) if enough else (np.array([np.nan]),) * 2
            estimate = Estimate(float(draws[0]), float(low[0]), float(high[0]), cases)
            pooled.setdefault(region, {})[metric] = estimate
    return pooled


def _agreement(
    volumes: Sequence[Mapping[str, tuple[float, float]]], patients: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Bland and Altman's limits in mL for every region of the scheme."""
    regions = dict.fromkeys(region for case in volumes for region in case)
    return {
        region: asdict(
            bland_altman([case[region][0] for case in volumes], [case[region][1] for case in volumes], patients)
        )
        for region in regions
    }


def _confidence(
    scores: Mapping[str, CaseScore], names: Sequence[str], patients: Sequence[str], scheme: LabelScheme
) -> dict[str, Any]:
    """FROC and calibration of every region for which some case has probabilities."""
    tables = {}
    for region in scheme.regions:
        kept = [
            (scores[name].confidence[region.name], patient)
            for name, patient in zip(names, patients, strict=True)
            if region.name in scores[name].confidence
        ]
        if kept:
            lesions = all(scheme.label(value).is_lesion for value in region.labels)
            tables[region.name] = confidence_table([c for c, _ in kept], [p for _, p in kept], lesions)
    return tables


def _written(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        region: {metric: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for metric, e in metrics.items()}
        for region, metrics in table.items()
    }


def _gathered(scores: Mapping[str, CaseScore]) -> list[str]:
    """The cases' warnings, a sentence that many share said once."""
    by_text: dict[str, list[str]] = {}
    for name in sorted(scores):
        for text in scores[name].warnings:
            by_text.setdefault(text, []).append(name)
    return [
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more cases' if len(names) > 3 else ''}: {text}"
        for text, names in by_text.items()
    ]


def _empty_regions(scores: Mapping[str, CaseScore]) -> list[str]:
    regions = dict.fromkeys(region for score in scores.values() for region in score.truth_voxels)
    return [
        f"region {region!r} is empty in the truth of all {len(scores)} cases: its numbers say nothing about finding it"
        for region in regions
        if not any(score.truth_voxels.get(region, 0) for score in scores.values())
    ]


def _left_out(mean: Mapping[str, Mapping[str, Estimate]], cases: int) -> list[str]:
    warnings = []
    for region, metrics in mean.items():
        # lesion rates by size are undefined wherever a case has no lesion of that size, which is no news
        plain_metrics = {metric: e for metric, e in metrics.items() if not metric.startswith("lesion_")}
        short = {metric: cases - e.n for metric, e in plain_metrics.items() if e.n < cases}
        if short:
            most = max(short.values())
            some = ", ".join(list(short)[:3]) + (f" and {len(short) - 3} more metrics" if len(short) > 3 else "")
            warnings.append(
                f"region {region!r}: {some} undefined in up to {most} of {cases} cases, left out of means (see reasons)"
            )
    return warnings


def csv_table(cases: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    """``scores.csv``: one row a case, region and metric; nothing where a value is undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "region", "metric", "value"))
    for case, regions in cases.items():
        for region, metrics in regions.items():
            writer.writerows(
                (case, region, metric, "" if value is None else value) for metric, value in metrics.items()
            )
    return text.getvalue()
