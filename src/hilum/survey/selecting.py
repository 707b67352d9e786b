"""WHICH CASES ARE MEANT: a data set and an expression to the cases that fulfil it.

Comes in: a data set, text such as ``slices <= 110 and hu_min >= -1024``. Goes out: the same data set with those cases
alone, and what became of the others. As little is read as the expression needs: nothing for names and the set's own
table, headers for counts and spacing, whole files for HU and labels; what was read is remembered in a file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum.config import Recipe
from hilum.datasets import CaseRef, Dataset, open_dataset
from hilum.errors import DatasetError
from hilum.labels import LabelScheme
from hilum.progress import SILENT, Progress
from hilum.survey.describing import FORMAT, Asked, describe_case, fact_names, table_facts
from hilum.survey.looking import look_at
from hilum.survey.where import Where, parse_where

MEMORY = "where.jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """What an expression made of a data set; all hold case names in order.

    Attributes:
        cases: fulfil it.
        others: do not.
        unknown: a fact that decides is not known of them.
        failed: could not be read, and why.
    """

    cases: tuple[str, ...]
    others: tuple[str, ...]
    unknown: tuple[str, ...]
    failed: dict[str, str]

    def sentence(self) -> str:
        """``48 of 210 cases; 1 could not be read: case_1``."""
        total = sum(len(part) for part in (self.cases, self.others, self.unknown, self.failed))
        text = f"{len(self.cases)} of {total} cases"
        if self.unknown:
            text += f"; not known of {len(self.unknown)}: {', '.join(self.unknown[:5])}"
        if self.failed:
            text += f"; could not be read, {len(self.failed)}: {', '.join(list(self.failed)[:5])}"
        return text


def checked_where(
    text: str, cases: Sequence[CaseRef], scheme: LabelScheme | None, labels_only: bool = False
) -> tuple[Where, str]:
    """The expression, every name in it known, and what must be read to answer it: "table", "grid" or "voxels".

    Raises:
        UsageError: it cannot be read, or asks for what is no fact of these cases.
    """
    where = parse_where(text)
    known = fact_names(cases, scheme, labels_only)
    where.known(known)
    asked = {known[name] for name in where.names}
    return where, next((need for need in ("voxels", "grid") if need in asked), "table")


def chosen_of(where: Where, records: Sequence[Mapping[str, Any]]) -> Chosen:
    """Ask an expression of cases that were described."""
    names: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    failed: dict[str, str] = {}
    for record in records:
        if record["failed"]:
            failed[record["case"]] = record["failed"]
        else:
            names[where(record["facts"])].append(record["case"])
    return Chosen(tuple(names[True]), tuple(names[False]), tuple(names[None]), failed)


def select(
    dataset: Dataset,
    text: str,
    memory: Path,
    *,
    scheme: LabelScheme | None = None,
    labels_only: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Dataset, Chosen]:
    """The cases of a data set that fulfil an expression.

    Args:
        dataset: any.
        text: see ``where``; an empty one means all cases.
        memory: file that remembers what was read.
        scheme: what the labels mean; the data set's own if None.
        labels_only: ask for no image.
        workers: processes.
        progress: counts cases.

    Raises:
        UsageError: see ``checked_where``.
        DatasetError: no case fulfils it.
    """
    if not text:
        return dataset, Chosen(tuple(case.name for case in dataset.cases), (), (), {})
    scheme = scheme or dataset.scheme
    where, need = checked_where(text, dataset.cases, scheme, labels_only)
    records: list[dict[str, Any]]
    if need == "table":
        records = [{"case": case.name, "facts": table_facts(case), "failed": None} for case in dataset.cases]
    else:
        voxels = need == "voxels"
        orders = [Asked(case, scheme, (), labels_only, voxels) for case in dataset.cases]
        title = "Reading scans for --where" if voxels else "Reading headers for --where"
        asked = ["describe", FORMAT, need]
        records = look_at(orders, memory, workers if voxels else 1, progress, title, describe_case, asked)
        for record in records:  # the table may have changed since
            record["facts"] |= table_facts(dataset.case(record["case"]))
    chosen = chosen_of(where, records)
    if not chosen.cases:
        raise DatasetError(
            f"no case fulfils {text!r} ({chosen.sentence()})",
            where=dataset.name,
            fix="'hilum data explore' shows what the cases hold",
        )
    for case, why in chosen.failed.items():
        log.warning("%s is left out: %s", case, why)
    if chosen.unknown:
        log.warning("left out, because a fact is not known of them: %s", ", ".join(chosen.unknown))
    wanted = set(chosen.cases)
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.name in wanted)), chosen


def open_chosen(recipe: Recipe, folder: Path, progress: Progress = SILENT) -> Dataset:
    """The data set that a recipe names, with the cases that its ``data.where`` means.

    Args:
        recipe: names the data set and its path.
        folder: of the run: what was read to choose is remembered there.
        progress: counts cases.

    Raises:
        UsageError, DatasetError: see ``select`` and ``datasets.open_dataset``.
    """
    dataset = open_dataset(recipe.data.dataset, Path(recipe.data.path))
    if not recipe.data.where:
        return dataset
    scheme = recipe.scheme if recipe.labels else None
    dataset, chosen = select(dataset, recipe.data.where, folder / MEMORY, scheme=scheme, progress=progress)
    progress.say(f"data.where: {chosen.sentence()}")
    return dataset
