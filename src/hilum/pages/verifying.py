"""The page of ``hilum data verify``: what is wrong in which class, leakage, and every case with its facts.

Comes in: the report as ``survey.verify`` made it. Goes out: one HTML file. It computes nothing but what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.pages.units import DASH
from hilum.pages.writing import write_page

_SAID = {
    "broken": "Broken: it cannot be used as it is",
    "fixable": "Fixable: hilum data verify --fix writes corrected copies",
    "noise": "Noise: read as if it were right",
    "note": "Worth knowing",
}


def verify_page(report: Mapping[str, Any], path: Path) -> Path:
    """Write the page; its path.

    Args:
        report: what ``verify.json`` holds.
        path: of the page.
    """
    total = report["summary"]
    context = {
        "kind": "Data set, verified",
        "heading": report["dataset"],
        "lead": f"{total['cases']} cases: {total['clean']} without any finding, {total['broken']} broken, "
        f"{total['fixable']} fixable, {total['noise']} with noise, {total['note']} with notes only.",
        "header_facts": [fact for fact in (report["path"], report["licence"]) if fact],
        "warnings": [leak["text"] for leak in report["leakage"] if leak["cases"]],
        "groups": _groups(report),
        "what": {code: entry["what"] for code, entry in report["codes"].items()},
        "heads": ["Case", "Voxels", "Spacing (mm)", "Axes", "HU", "Label volumes (mL)", "Worst finding"],
        "rows": [_row(case) for case in report["cases"]],
        "traps": [item["text"] for item in (*report["leakage"], *report["traps"]) if not item.get("cases")],
        "fixed": [
            {"case": e["case"], "text": e.get("failed") or "; ".join(item["what"] for item in e["done"])}
            for e in report.get("fixed", [])
        ],
    }
    return write_page(path, "verify.html", context)


def _groups(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings by class and code: what, and in which cases."""
    groups = []
    for kind, title in _SAID.items():
        by_code: dict[str, list[dict[str, str]]] = {}
        for case in report["cases"]:
            for finding in case["findings"]:
                if finding["class"] == kind:
                    file = Path(finding["file"]).name
                    told = {"case": case["case"], "file": file, "text": finding["text"], "fix": finding["fix"]}
                    by_code.setdefault(finding["code"], []).append(told)
        if by_code:
            groups.append({"title": title, "kind": kind, "codes": sorted(by_code.items())})
    return groups


def _row(case: Mapping[str, Any]) -> list[str]:
    """One case as text cells."""
    image, labels = case["image"], case["labels"]
    grid = image or labels
    ml = [n * _voxel_ml(labels) for _, n in sorted(labels["voxels"].items(), key=lambda x: int(x[0]))] if labels else []
    names = list(labels["voxels"]) if labels else []
    classes = [finding["class"] for finding in case["findings"]]
    return [
        case["case"],
        "×".join(str(n) for n in grid["shape"]) if grid else DASH,
        "×".join(f"{s:.3g}" for s in grid["spacing_mm"]) if grid else DASH,
        grid["codes"] if grid else DASH,
        f"{image['hu_min']} to {image['hu_max']}" if image else DASH,
        ", ".join(f"{name}: {value:.0f}" for name, value in zip(names, ml, strict=True)) or DASH,
        next((kind for kind in _SAID if kind in classes), ""),
    ]


def _voxel_ml(labels: Mapping[str, Any]) -> float:
    a, b, c = labels["spacing_mm"]
    return float(a * b * c) / 1000
