"""Whether methods differ: paired by case, with intervals and corrected p-values.

Comes in: folders that ``evaluate`` wrote, of one protocol. Goes out: ``OUT/comparison.json``, ``comparison.csv``: for
every two evaluations, region and metric the mean difference (second less first) with its 95 % bootstrap interval, the
Wilcoxon signed-rank p, that p by Holm, and two effect sizes; and a sentence for a methods section. Only cases that all
evaluations have are compared. It reads scores, never label maps.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DatasetError, InputError, UsageError
from hilum.files import plain, read_json, write_json, write_text
from hilum.judge.kits import REGIONS
from hilum.judge.ranking import rank_teams
from hilum.judge.statistics import SAMPLES, Difference, holm, non_inferior, paired_difference

ALPHA = 0.05
# sizes and raw counts describe a case, not a method
_NO_MERIT = ("TP", "FP", "FN", "TN", "n_pred", "n_ref", "I", "S", "lesions_gt", "lesions_pred")
_NO_MERIT_PARTS = ("volume_gt", "volume_pred", "surface_area", "_TP", "_FP", "_FN")
# signed errors: nought is best, so that more is neither better nor worse
_SIGNED = ("volume_error_ml", "relative_volume_error", "rvd", "tumor_burden_diff", "tumor_burden_max")
_LOWER = ("voe", "assd", "rmsd", "msd", "lesions_missed", "lesions_invented", "tumor_burden_rmse")


def compare(evaluations: Sequence[Path], out: Path, margins: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Compare evaluations and write ``comparison.json`` and ``comparison.csv``.

    Args:
        evaluations: folders with a ``scores.json``, or such files; two or more.
        out: folder for the results.
        margins: metric -> how much worse the second may be and still count as not inferior.

    Returns:
        What ``comparison.json`` holds; ``text`` says it in lines for people.

    Raises:
        UsageError: fewer than two, or different protocols or schemes.
        InputError: no scores there.
        DatasetError: no case in common.
    """
    if len(evaluations) < 2:
        raise UsageError(f"{len(evaluations)} evaluation", wanted="two or more folders that hilum evaluate wrote")
    files = [Path(path) / "scores.json" if Path(path).is_dir() else Path(path) for path in evaluations]
    tables = dict(zip(_names(files), (_read(file) for file in files), strict=True))
    _require_one_kind(tables)
    cases = _common(tables)
    first = next(iter(tables.values()))
    patients = [str(first.get("patients", {}).get(case, case)) for case in cases]
    rows = _rows(tables, cases, patients, margins or {})
    result = {
        "format": 1,
        "protocol": first["protocol"],
        "empty_policy": first["empty_policy"],
        "scheme": first.get("scheme"),
        "evaluations": [
            {"name": name, "path": str(file.parent), "cases": len(table["cases"])}
            for (name, table), file in zip(tables.items(), files, strict=True)
        ],
        "cases": cases,
        "patients": len(set(patients)),
        "comparisons": rows,
        "ranking": _ranking(tables, cases) if first["protocol"] in ("kits21", "kits23") else [],
        "methods": _methods(first, len(cases), len(set(patients))),
        "warnings": _warnings(tables, cases),
    }
    answer: dict[str, Any] = plain(result)
    answer["text"] = _text(answer)
    write_json(Path(out) / "comparison.json", answer)
    write_text(Path(out) / "comparison.csv", _csv(answer["comparisons"]))
    return answer


def better(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 if it can lie on either side of its best or says nothing."""
    if metric in _SIGNED or not _has_merit(metric):
        return 0
    return -1 if metric in _LOWER or metric.endswith("_mm") else 1


def _has_merit(metric: str) -> bool:
    return metric not in _NO_MERIT and not any(part in f"_{metric}" for part in _NO_MERIT_PARTS)


def _read(file: Path) -> dict[str, Any]:
    table = read_json(file)
    if not isinstance(table, dict) or not {"protocol", "cases", "empty_policy"} <= table.keys():
        raise InputError("holds no scores", where=file, wanted="scores.json as hilum evaluate writes it")
    return table


def _names(files: Sequence[Path]) -> list[str]:
    """Folder names, with their parents' where they are alike."""
    names = [file.parent.resolve().name or str(file.parent) for file in files]
    if len(set(names)) < len(names):
        names = ["/".join(file.parent.resolve().parts[-2:]) for file in files]
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, 1)]


def _require_one_kind(tables: Mapping[str, Mapping[str, Any]]) -> None:
    for key in ("protocol", "scheme"):
        found = {name: table.get(key) for name, table in tables.items()}
        if len(set(found.values())) > 1:
            raise UsageError(
                f"evaluations of different {key}s ({', '.join(f'{n}: {v}' for n, v in found.items())})",
                wanted=f"one {key}: numbers of different rules cannot be compared",
                fix="evaluate all predictions anew with one --protocol and --scheme",
            )


def _common(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cases = sorted(set.intersection(*(set(table["cases"]) for table in tables.values())))
    if not cases:
        raise DatasetError("the evaluations have no case in common", wanted="scores of the same cases")
    return cases


def _rows(
    tables: Mapping[str, Mapping[str, Any]], cases: Sequence[str], patients: Sequence[str], margins: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row for each two evaluations, region and metric; Holm over all rows of a metric."""
    keys = dict.fromkeys(
        (region, metric)
        for case in cases
        for region, metrics in next(iter(tables.values()))["cases"][case].items()
        for metric in metrics
        if _has_merit(metric)
    )
    rows = []
    for (first, one), (second, two) in combinations(tables.items(), 2):
        for region, metric in keys:
            values = [
                np.array([_number(table["cases"][case].get(region, {}).get(metric)) for case in cases])
                for table in (one, two)
            ]
            found = paired_difference(values[0].tolist(), values[1].tolist(), patients)
            both = np.isfinite(values[0]) & np.isfinite(values[1])
            means = [float(v[both].mean()) if both.any() else float("nan") for v in values]
            row = {"first": first, "second": second, "region": region, "metric": metric}
            row |= {"first_mean": means[0], "second_mean": means[1], "difference": found.mean}
            row |= {"low": found.low, "high": found.high, "p": found.p, "p_holm": float("nan")}
            row |= {"rank_biserial": found.rank_biserial, "cohen_dz": found.cohen_dz, "n": found.n}
            if metric in margins:
                row["margin"] = margins[metric]
                row["non_inferior"] = _not_worse(found, metric, margins[metric])
            rows.append(row)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        family = [row for row in rows if row["metric"] == metric]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = float(p)
            row["better"] = _verdict(row)
    return rows


def _not_worse(found: Difference, metric: str, margin: float) -> bool | None:
    direction = better(metric)
    return non_inferior(found, margin, direction > 0) if direction and found.n > 1 else None


def _verdict(row: Mapping[str, Any]) -> str:
    """Which one is better, where both the interval and the corrected test say so; empty where they do not."""
    direction = better(row["metric"])
    if not direction or not row["p_holm"] < ALPHA or not (row["low"] > 0 or row["high"] < 0):
        return ""
    return str(row["second"] if row["difference"] * direction > 0 else row["first"])


def _ranking(tables: Mapping[str, Mapping[str, Any]], cases: Sequence[str]) -> list[dict[str, Any]]:
    """KiTS's rank-then-aggregate table over the common cases."""
    means = {
        name: [
            float(np.mean([table["cases"][case][region][metric] for case in cases]))
            for metric in ("dice", "surface_dice")
            for region in REGIONS
        ]
        for name, table in tables.items()
    }
    return [vars(standing) for standing in rank_teams(means)]


def _methods(scores: Mapping[str, Any], cases: int, patients: int) -> str:
    return (
        f"Predictions were scored with the protocol {scores['protocol']} ({scores['empty_policy'].rstrip('.')}) on "
        f"{cases} cases of {patients} patients; methods were compared by mean paired differences with 95 % percentile "
        f"bootstrap intervals over patients ({SAMPLES} samples) and two-sided Wilcoxon signed-rank tests; p-values "
        "were adjusted by Holm's method over all regions and pairs of methods of a metric; effect sizes are "
        "matched-pairs rank-biserial correlations and Cohen's dz."
    )


def _warnings(tables: Mapping[str, Mapping[str, Any]], cases: Sequence[str]) -> list[str]:
    warnings = []
    for name, table in tables.items():
        left = sorted(set(table["cases"]) - set(cases))
        if left:
            warnings.append(f"{name}: {len(left)} cases that others lack are left out ({', '.join(left[:5])})")
        if table.get("failures"):
            warnings.append(f"{name}: {len(table['failures'])} cases could not be scored")
    if len(cases) < 10:
        warnings.append(f"{len(cases)} cases in common: tests of so few can hardly show anything")
    return warnings


def _text(answer: Mapping[str, Any]) -> str:
    lines = [f"{len(answer['cases'])} cases in common, protocol {answer['protocol']}"]
    for row in answer["comparisons"]:
        if "dice" not in row["metric"].lower() or row["difference"] is None:
            continue
        interval = f" ({row['low']:+.4f} to {row['high']:+.4f})" if row["low"] is not None else ""
        verdict = f"{row['better']} is better" if row["better"] else "no difference shown"
        lines.append(
            f"{row['region']} {row['metric']}: {row['first']} {row['first_mean']:.4f}, {row['second']} "
            f"{row['second_mean']:.4f}, difference {row['difference']:+.4f}{interval}, Holm p {row['p_holm']:.3g}, "
            f"n {row['n']}: {verdict}"
        )
    lines += [f"rank {row['final_rank']}: {row['team']}" for row in answer["ranking"]]
    return "\n".join([*lines, *(f"warning: {text}" for text in answer["warnings"]), answer["methods"]])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
