"""Charts of a training log, one for each thing that was wanted and logged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hilum.pages.charts import curve_chart

# heading, label of the axis, keys in log.jsonl, span of the axis
_Curve = tuple[str, str, tuple[str, ...], tuple[float, float] | None]
LEARNING: tuple[_Curve, ...] = (
    ("Loss", "loss", ("loss", "validation_loss"), None),
    ("Patch Dice", "Dice on patches", ("patch_dice",), (0.0, 1.0)),
)
MACHINE: tuple[_Curve, ...] = (
    ("Learning rate", "learning rate", ("lr", "learning_rate"), None),
    ("Waiting for data", "share of time", ("data_wait", "data_wait_share"), (0.0, 1.0)),
)


def curves_of(lines: Sequence[Mapping[str, Any]], wanted: Sequence[_Curve]) -> list[tuple[str, Markup]]:
    """Charts of a training log, one for each thing that was wanted and logged."""
    rows = [line for line in lines if "step" in line and "loss" in line]
    steps = [row["step"] for row in rows]
    charts = []
    for heading, up, keys, span in wanted:
        curves = {}
        for key in keys:
            for name, values in _series(rows, key).items():
                curves[name] = (steps, values)
        if curves:
            svg = curve_chart(curves, f"{heading} over steps", across="step", up=up, span=span)
            charts.append((heading, Markup(svg)))  # drawn here; the SVG writer escaped the names
    return charts


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    """One logged quantity as lines: itself, or one line a class where it is a table or a list."""
    values = [row.get(key) for row in rows]
    sample = next((value for value in values if value is not None), None)
    if sample is None:
        return {}
    if isinstance(sample, Mapping):
        return {str(part): [(v or {}).get(part) for v in values] for part in sample}
    if isinstance(sample, list):
        return {f"class {n + 1}": [v[n] if v else None for v in values] for n in range(len(sample))}
    return {key.replace("_", " "): values}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that can be read; the last one may be cut off while a run goes on."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines
