"""Writes a set of synthetic patients in one of several layouts, with a manifest.

Comes in: a folder, a number of cases, a seed, a layout. Goes out: the layout's files and ``manifest.json``; what is
already there from the same order is kept, so that an interrupted run goes on. How a layout looks is ``layouts/``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.cores import cpu_count
from hilum.errors import UsageError
from hilum.files import plain, write_json
from hilum.phantom.case import SCHEMES_MADE, make_case
from hilum.phantom.contrast import APPEARANCES
from hilum.phantom.layouts import Place, layouts
from hilum.phantom.layouts import layout as _layout
from hilum.phantom.manifest import FORMAT, MANIFEST, earlier_facts
from hilum.phantom.pool import each
from hilum.phantom.tissues import PHASES
from hilum.progress import SILENT, Progress

LAYOUTS = layouts()


@dataclass(frozen=True)
class WrittenCase:
    """One case of a written set.

    Attributes:
        name: "case_000".
        image, labels: the files, or folders of DICOM slices.
        patient: the same as the name, for each patient is scanned once.
        facts: what ``make_case`` drew.
    """

    name: str
    image: Path
    labels: Path
    patient: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Order:
    """What one process is asked to make."""

    place: Place
    seed: int
    layout: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """What the set calls the case."""
        return self.place.name

    @property
    def done(self) -> bool:
        """Whether its files are there; a finished case is in the manifest too."""
        return self.place.image.exists() and self.place.labels.exists()


def write_set(
    out: str | Path,
    cases: int,
    seed: int,
    *,
    layout: str = "folder",
    small: bool = False,
    labels: str | None = None,
    phase: str | None = None,
    appearance: str = "usual",
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> list[WrittenCase]:
    """Make ``cases`` patients and write them; the same arguments give the same voxels whatever the workers.

    Args:
        out: folder; must be empty, absent, or hold an earlier part of the same set.
        cases: how many.
        seed: of the set; a set of more cases begins with the same patients.
        layout: one of ``LAYOUTS``: "folder", "nnunet", "kits23" (also "kits"), "lits", "msd", "ircadb", "dicom".
        labels: as ``make_case`` takes it; what the layout usually carries if None.
        small, phase, appearance, shape, spacing_mm: as ``make_case`` takes them.
        workers: processes; one a core if None.
        progress: told of each case.

    Raises:
        UsageError: a count, seed, layout or option that makes no sense.
        OutputError: the folder holds another set, or cannot be written.
    """
    if cases < 1 or seed < 0 or (workers is not None and workers < 1):
        raise UsageError(
            f"cases {cases}, seed {seed}, workers {workers}", wanted="at least 1 case and 1 worker, seed >= 0"
        )
    labels = _checked(layout, labels, phase, appearance)
    out = Path(out)
    options: dict[str, Any] = {
        "small": small, "labels": labels, "phase": phase, "appearance": appearance, "shape": shape,
        "spacing_mm": spacing_mm,
    }  # fmt: skip
    head = plain(
        {
            "format": FORMAT,
            "made_by": "hilum phantom",
            "seed": seed,
            "layout": layout,
            "scheme": labels,
            "options": options,
        }
    )
    known_facts = earlier_facts(out, head)
    orders = [_order(out, i, seed, layout, options) for i in range(cases)]
    done = {o.name: known_facts[o.name] for o in orders if o.name in known_facts and o.done}
    _write_manifest(out, head, orders, done)  # at once: it marks the folder as this set's
    bar = progress.stage("Making phantoms", cases)
    bar.step(len(done))
    todo = [order for order in orders if order.name not in done]
    count = min(len(todo), workers or cpu_count())

    def finish(order: _Order, facts: dict[str, Any]) -> None:
        done[order.name] = facts
        _write_manifest(out, head, orders, done)  # after each case: an interruption loses at most the cases in work
        bar.step(note=order.name)

    each(_make, todo, count, finish)
    rows = [{"case": o.name, "scheme": labels, "facts": done[o.name]} for o in orders]
    _layout(layout).finish(out, rows)
    return [WrittenCase(o.name, o.place.image, o.place.labels, o.name, done[o.name]) for o in orders]


def _checked(layout: str, labels: str | None, phase: str | None, appearance: str) -> str:
    """The labels' scheme, after every word was found to be known."""
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}", wanted=f"one of {list(LAYOUTS)}")
    carried: tuple[str, ...] = _layout(layout).SCHEMES
    labels = labels or carried[0]
    for value, known, word in ((labels, SCHEMES_MADE, "labels"), (appearance, APPEARANCES, "appearance")):
        if value not in known:
            raise UsageError(f"{word} {value!r}", wanted=f"one of {list(known)}")
    if labels not in carried:
        raise UsageError(f"labels {labels!r} with layout {layout!r}", wanted=f"one of {list(carried)}, as the real set")
    if phase is not None and phase not in PHASES:
        raise UsageError(f"phase {phase!r}", wanted=f"one of {list(PHASES)}")
    return labels


def _order(out: Path, number: int, seed: int, layout: str, options: dict[str, Any]) -> _Order:
    """Names and the seed of one case; its seed depends on the set's seed and its number alone."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return _Order(_layout(layout).place(out, number), own, layout, options)


def _make(order: _Order) -> dict[str, Any]:
    """Make and write one case; returns its facts. Runs in a process of its own."""
    case = make_case(order.seed, **order.options)
    _layout(order.layout).write(order.place, case)
    return case.facts


def _write_manifest(out: Path, head: dict[str, Any], orders: list[_Order], done: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "case": o.name,
            "image": o.place.image.relative_to(out).as_posix(),
            "label": o.place.labels.relative_to(out).as_posix(),
            "patient": o.name,
            "facts": done[o.name],
        }
        for o in orders
        if o.name in done
    ]
    write_json(out / MANIFEST, {**head, "cases": rows})
