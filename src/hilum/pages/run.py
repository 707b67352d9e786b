"""The page of a training run: its curves, plan and recipe, its held-out scores.

Comes in: a run's folder. Goes out: ``report.html`` in it. It computes no number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.errors import InputError
from hilum.files import read_json
from hilum.pages import strings, tables
from hilum.pages.curves import LEARNING, MACHINE, curves_of, read_log
from hilum.pages.evaluation import read_scores, score_parts
from hilum.pages.writing import write_page


def run_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a training run's folder from what is there: log, plan, recipe, held-out scores.

    Raises:
        InputError: neither a log nor a model is in the folder.
    """
    folder = Path(run_folder)
    lines = read_log(folder / "log.jsonl")
    model = _optional_json(folder / "model" / "model.json") or {}
    if not lines and not model:
        raise InputError(
            "no training run", where=folder, wanted="log.jsonl or model/model.json", fix="give a RUN folder"
        )
    plan = model.get("plan") or _optional_json(folder / "plan.json") or {}
    recipe = folder / "recipe.toml"
    validation = folder / "validation"
    scores = read_scores(validation) if (validation / "scores.json").is_file() else None
    context = {
        "kind": "Training run",
        "heading": folder.resolve().name,
        "lead": _run_lead(lines, scores),
        "header_facts": [],
        "warnings": [*(scores.get("warnings", ()) if scores else ())],
        **(
            score_parts(scores)
            if scores
            else {"mean_table": None, "more_table": None, "bar_svg": "", "interval_note": ""}
        ),
        "curves": curves_of(lines, LEARNING + MACHINE),
        "has_validation_page": (validation / "report.html").is_file(),
        "plan_facts": strings.facts(plan),
        "model_facts": strings.facts(model.get("card") or {}),
        "run_facts": strings.facts(next((x["facts"] for x in lines if isinstance(x.get("facts"), dict)), {})),
        "recipe": recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
    }
    return write_page(folder / "report.html", "run.html", context)


def _run_lead(lines: Sequence[Mapping[str, Any]], scores: Mapping[str, Any] | None) -> str:
    parts = []
    last = next((line for line in reversed(lines) if "step" in line and "loss" in line), None)
    if last is not None:
        parts.append(f"{last['step']} steps, last loss {strings.number(last['loss'])}")
    if scores is not None:
        parts.append(f"held out: {tables.lead(scores).rstrip('.')}")
    return f"{'. '.join(part[:1].upper() + part[1:] for part in parts)}." if parts else ""


def _optional_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path)
    return value if isinstance(value, dict) else None
