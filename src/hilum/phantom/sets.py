"""Writes a set of synthetic patients as NIfTI files with a manifest.

Comes in: a folder, a number of cases, a seed. Goes out: ``images/``, ``labels/`` and ``manifest.json``; what is already
there from the same order is kept, so that an interrupted run goes on. It knows nothing of data sets beyond this layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import InputError, OutputError, UsageError
from hilum.files import plain, read_json, write_json
from hilum.phantom.case import SCHEMES_MADE, make_case
from hilum.phantom.contrast import PHASES
from hilum.progress import SILENT, Progress
from hilum.scans import write_labels, write_scan

FORMAT = 1
MANIFEST = "manifest.json"
LAYOUTS = ("folder", "nnunet", "kits")


@dataclass(frozen=True)
class WrittenCase:
    """One case of a written set.

    Attributes:
        name: "case_000".
        image, labels: the files.
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

    name: str
    seed: int
    image: Path
    labels: Path
    options: dict[str, Any]


def write_set(
    out: str | Path,
    cases: int,
    seed: int,
    *,
    layout: str = "folder",
    small: bool = False,
    labels: str = "kits",
    phase: str | None = None,
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
        layout: "folder" (images/case_000.nii.gz), "nnunet" (imagesTr/case_000_0000.nii.gz, labelsTr) or "kits"
            (case_00000/imaging.nii.gz, segmentation.nii.gz).
        small, labels, phase, shape, spacing_mm: as ``make_case`` takes them.
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
    for value, known, word in ((layout, LAYOUTS, "layout"), (labels, SCHEMES_MADE, "labels")):
        if value not in known:
            raise UsageError(f"{word} {value!r}", wanted=f"one of {list(known)}")
    if phase is not None and phase not in PHASES:
        raise UsageError(f"phase {phase!r}", wanted=f"one of {list(PHASES)}")
    out = Path(out)
    options: dict[str, Any] = {
        "small": small, "labels": labels, "phase": phase, "shape": shape, "spacing_mm": spacing_mm
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
    known_facts = _earlier(out, head)
    orders = [_order(out, i, seed, layout, options) for i in range(cases)]
    done = {
        o.name: known_facts[o.name]
        for o in orders
        if o.name in known_facts and o.image.is_file() and o.labels.is_file()
    }
    _write_manifest(out, head, orders, done)  # at once: it marks the folder as this set's
    bar = progress.stage("Making phantoms", cases)
    bar.step(len(done))
    todo = [order for order in orders if order.name not in done]
    count = min(len(todo), workers or _cores())

    def finish(order: _Order, facts: dict[str, Any]) -> None:
        done[order.name] = facts
        _write_manifest(out, head, orders, done)  # after each case: an interruption loses at most the cases in work
        bar.step(note=order.name)

    _make_all(todo, count, finish)
    return [WrittenCase(o.name, o.image, o.labels, o.name, done[o.name]) for o in orders]


def _make_all(todo: list[_Order], processes: int, finish: Callable[[_Order, dict[str, Any]], None]) -> None:
    """Make every case and tell ``finish`` its facts as soon as it is there."""
    if processes <= 1:
        for order in todo:
            finish(order, _make(order))
        return
    # "spawn": forking a process that already has threads can hang
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_make, order): order for order in todo}
        try:
            for future in as_completed(running):
                finish(running[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _order(out: Path, number: int, seed: int, layout: str, options: dict[str, Any]) -> _Order:
    """Names and the seed of one case; its seed depends on the set's seed and its number alone."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    name = f"case_{number:03d}"
    if layout == "nnunet":
        return _Order(name, own, out / "imagesTr" / f"{name}_0000.nii.gz", out / "labelsTr" / f"{name}.nii.gz", options)
    if layout == "kits":
        name = f"case_{number:05d}"
        return _Order(name, own, out / name / "imaging.nii.gz", out / name / "segmentation.nii.gz", options)
    return _Order(name, own, out / "images" / f"{name}.nii.gz", out / "labels" / f"{name}.nii.gz", options)


def _make(order: _Order) -> dict[str, Any]:
    """Make and write one case; returns its facts. Runs in a process of its own."""
    case = make_case(order.seed, **order.options)
    write_scan(order.image, case.ct)
    write_labels(order.labels, case.labels)
    return case.facts


def _earlier(out: Path, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Facts of the cases that an earlier run of the same order has finished, by name."""
    file = out / MANIFEST
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError("is not an empty folder", where=out, fix="choose a new folder")
        return {}
    try:
        found = read_json(file)
        same = {key: found.get(key) for key in head} == head
        facts = {str(case["case"]): dict(case["facts"]) for case in found["cases"]}
    except (InputError, AttributeError, KeyError, TypeError):
        raise OutputError("holds a manifest that cannot be read", where=file, fix="choose a new folder") from None
    if not same:
        raise OutputError(
            "holds a set made with another seed or other options",
            where=file,
            wanted=f"seed {head['seed']} and {head['options']}",
            fix="choose a new folder, or delete this one",
        )
    return facts


def _write_manifest(out: Path, head: dict[str, Any], orders: list[_Order], done: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "case": o.name,
            "image": o.image.relative_to(out).as_posix(),
            "label": o.labels.relative_to(out).as_posix(),
            "patient": o.name,
            "facts": done[o.name],
        }
        for o in orders
        if o.name in done
    ]
    write_json(out / MANIFEST, {**head, "cases": rows})
