"""Whether methods differ: paired by case, with intervals and corrected p-values.

Comes in: folders that ``evaluate`` wrote, of one protocol. Goes out: ``OUT/comparison.json``, ``comparison.csv``: for
every two evaluations, region and metric the mean difference (second less first) with its 95 % bootstrap interval, the
Wilcoxon signed-rank p, that p by Holm, two effect sizes, and how many patients it would take to show; rankings and how
firmly they stand; subgroups; agreement of volumes; and a sentence for a methods section, written from what was done.
Only cases that all evaluations have are compared. It reads scores, never label maps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DatasetError, InputError, UsageError
from hilum.files import plain, read_json, write_json, write_text
from hilum.judge.contrasts import ALPHA, Field, better, compared, compared_in_groups
from hilum.judge.kits import REGIONS
from hilum.judge.ranking import rank_teams
from hilum.judge.standing import official_stability, standings
from hilum.judge.statistics import bland_altman
from hilum.judge.subgroups import Group, read_groups
from hilum.judge.telling import comparison_text, csv_of, methods_sentence

__all__ = ["better", "compare"]
# of these the standings are told, the page draws every case, and subgroups are compared
HEADLINES = ("dice", "Dice", "surface_dice", "nsd_2mm", "dice_per_case", "composite", "lesion_f1")
OFFICIAL = ("kits21", "kits21-samples", "kits23")


def compare(
    evaluations: Sequence[Path],
    out: Path,
    margins: Mapping[str, float] | None = None,
    groups: Path | None = None,
    claims: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Compare evaluations and write ``comparison.json`` and ``comparison.csv``.

    Args:
        evaluations: folders with a ``scores.json``, or such files; two or more.
        out: folder for the results.
        margins: metric -> how much worse the second may be and still count as not inferior.
        groups: CSV of traits of the cases, for comparisons within subgroups; see ``subgroups.read_groups``.
        claims: metric -> the difference that somebody wants to show; told is how many patients that takes.

    Returns:
        What ``comparison.json`` holds; ``text`` says it in lines for people.

    Raises:
        UsageError: fewer than two, different protocols or schemes, a metric that is not there, a margin not above 0.
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
    owners = {case: str(patient) for case, patient in first.get("patients", {}).items()}
    field = Field(tables, cases, [owners.get(case, case) for case in cases])
    _require_metrics(field, margins or {}, claims or {})
    found = read_groups(groups, cases, owners) if groups is not None else []
    rows = compared(field, margins or {}, claims or {})
    subgroups = compared_in_groups(field, found)
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
        "patients": len(set(field.patients)),
        "comparisons": rows,
        "ranking": _ranking(field),
        "standings": _standings(field),
        "subgroups": subgroups,
        "volume_agreement": _agreement(field),
        "values": _values(field),
    }
    result["methods"] = methods_sentence(result, margins or {}, claims or {}, groups is not None)
    few = _few(rows, len(set(field.patients)))
    result["warnings"] = _warnings(tables, cases) + few + _group_warnings(found, groups)
    answer: dict[str, Any] = plain(result)
    answer["text"] = comparison_text(answer)
    write_json(Path(out) / "comparison.json", answer)
    write_text(Path(out) / "comparison.csv", csv_of(answer["comparisons"]))
    if groups is not None:
        write_text(Path(out) / "subgroups.csv", csv_of(answer["subgroups"]))
    return answer


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
    for key, plural in (("protocol", "protocols"), ("scheme", "schemes"), ("options", "options")):
        found = {name: table[key] for name, table in tables.items() if key in table}
        if len({json.dumps(value, sort_keys=True) for value in found.values()}) > 1:
            raise UsageError(
                f"evaluations of different {plural} ({', '.join(f'{n}: {v}' for n, v in found.items())})",
                wanted=f"the same {key}: numbers of different rules cannot be compared",
                fix="evaluate all predictions anew in the same way",
            )


def _common(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cases = sorted(set.intersection(*(set(table["cases"]) for table in tables.values())))
    if not cases:
        raise DatasetError("the evaluations have no case in common", wanted="scores of the same cases")
    return cases


def _warnings(tables: Mapping[str, Mapping[str, Any]], cases: Sequence[str]) -> list[str]:
    warnings = []
    for name, table in tables.items():
        left = sorted(set(table["cases"]) - set(cases))
        if left:
            warnings.append(f"{name}: {len(left)} cases that others lack are left out ({', '.join(left[:5])})")
        if table.get("failures"):
            warnings.append(f"{name}: {len(table['failures'])} cases could not be scored")
    return warnings


def _few(rows: Sequence[Mapping[str, Any]], patients: int) -> list[str]:
    """Whether so few patients can show anything at all: Wilcoxon's least p is that of differences of one sign."""
    tests = max(Counter(row["metric"] for row in rows).values(), default=0)
    least = 2.0 ** (1 - patients)
    if least * tests >= ALPHA:
        return [
            f"{patients} patients can show no difference, however large: the least p that Wilcoxon's test has for so "
            f"few is {least:.2g}, {min(1.0, least * tests):.2g} after Holm's correction over {tests} tests"
        ]
    return [f"{patients} patients: tests of so few can hardly show anything"] if patients < 10 else []


def _group_warnings(groups: Sequence[Group], asked: Path | None) -> list[str]:
    if asked is None:
        return []
    if not groups:
        return [f"{asked}: no group of 3 cases or more"]
    return ["subgroups are looked at after the fact: what they show is a question for other data, not an answer"]


def _require_metrics(field: Field, margins: Mapping[str, float], claims: Mapping[str, float]) -> None:
    known = sorted({metric for _, metric in field.columns()})
    for option, table in (("margin", margins), ("claim", claims)):
        for metric, value in table.items():
            if metric not in known:
                raise UsageError(f"--{option} of {metric!r}", wanted=f"one of {known}")
            if not (np.isfinite(value) and value > 0):
                raise UsageError(f"--{option} {metric}={value:g}", wanted="a number above 0")
            if option == "margin" and not better(metric):
                raise UsageError(
                    f"--margin of {metric!r}",
                    wanted="a metric of which more (or less) is better, without a best middle",
                )


def _ranking(field: Field) -> list[dict[str, Any]]:
    """KiTS's official table over the common cases, with how firmly each rank stands; empty for other protocols."""
    protocol = next(iter(field.tables.values()))["protocol"]
    if protocol not in OFFICIAL:
        return []
    columns = [(region, metric) for metric in ("dice", "surface_dice") for region in REGIONS]
    table = {name: np.array([field.column(name, r, m) for r, m in columns]) for name in field.tables}
    standing = rank_teams({name: values.mean(axis=1).tolist() for name, values in table.items()})
    firm = official_stability(table, field.patients)
    return [vars(row) | firm[row.team] for row in standing]


def _standings(field: Field) -> list[dict[str, Any]]:
    """Ranks of every region by its telling metrics."""
    rows = []
    for region, metric in field.columns():
        if metric in HEADLINES:
            values = {name: field.column(name, region, metric).tolist() for name in field.tables}
            found = standings(values, field.patients, better(metric) > 0)
            if found:
                rows.append({"region": region, "metric": metric, **found})
    return rows


def _agreement(field: Field) -> list[dict[str, Any]]:
    """Bland and Altman's limits of every method's volumes with the truth's, and the points to draw."""
    rows = []
    for name, table in field.tables.items():
        volumes = table.get("volumes_ml") or {}
        regions = dict.fromkeys(region for case in field.cases for region in volumes.get(case, {}))
        for region in regions:
            pairs = [
                (volumes[case][region], p)
                for case, p in zip(field.cases, field.patients, strict=True)
                if region in volumes.get(case, {})
            ]
            truth, prediction = [pair[0] for pair, _ in pairs], [pair[1] for pair, _ in pairs]
            found = asdict(bland_altman(truth, prediction, [p for _, p in pairs]))
            points = [list(pair) for pair, _ in pairs]
            rows.append({"evaluation": name, "region": region, **found, "truth_and_prediction_ml": points})
    return rows


def _values(field: Field) -> list[dict[str, Any]]:
    """Every case's value of the telling metrics, for the charts."""
    return [
        {
            "region": region,
            "metric": metric,
            "evaluations": {name: field.column(name, region, metric).tolist() for name in field.tables},
        }
        for region, metric in field.columns()
        if metric in HEADLINES
    ]
