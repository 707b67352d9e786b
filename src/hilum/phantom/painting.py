"""Paints CT around a whole folder of label maps.

Comes in: a folder of KiTS label maps. Goes out: for each ``case_XXXXX/imaging.nii.gz`` beside a copy of its
``segmentation.nii.gz``, byte for byte, perhaps ``organs.nii.gz``, and ``manifest.json``. What is there from the same
order is kept; a bad label map is named and does not stop the others. The copies keep the label maps' own licence.
"""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.cores import cpu_count
from hilum.errors import DatasetError, HilumError, OutputError, UsageError
from hilum.files import write_json, written
from hilum.labels import SCHEMES
from hilum.phantom.contrast import APPEARANCES
from hilum.phantom.manifest import FORMAT, MANIFEST, earlier_facts
from hilum.phantom.paint import paint_around
from hilum.phantom.pool import each
from hilum.phantom.tissues import PHASES
from hilum.progress import SILENT, Progress
from hilum.scans import case_name, read_labels, write_labels, write_scan
from hilum.volume import Volume

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class PaintedSet:
    """What came out: names of the painted cases, and why each of the others failed."""

    cases: tuple[str, ...]
    failures: dict[str, str]


@dataclass(frozen=True)
class _Order:
    name: str
    source: Path
    out: Path
    seed: int
    every: int
    options: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether its files are there; a finished case is in the manifest too."""
        return self.image.is_file() and self.labels.is_file() and self.learnt.is_file()

    @property
    def image(self) -> Path:
        return self.out / self.name / "imaging.nii.gz"

    @property
    def labels(self) -> Path:
        return self.out / self.name / "segmentation.nii.gz"

    @property
    def learnt(self) -> Path:
        """The label map that the manifest names."""
        return self.out / self.name / "organs.nii.gz" if self.options["organs"] else self.labels


def paint_set(
    labels: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    phase: str | None = None,
    appearance: str = "usual",
    every: int = 1,
    organs: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> PaintedSet:
    """Paint a CT around every label map of a folder.

    Args:
        labels: folder with ``NAME.nii.gz`` or ``NAME/segmentation.nii.gz``.
        out: folder; empty, absent, or with an earlier part of the same order.
        seed: with a case's name it decides all that the labels leave open.
        phase, appearance: as ``paint_around`` takes them.
        every: keep one column and row in so many, for quicker training; 1 keeps the label map as it is.
        organs: write ``organs.nii.gz`` too, the label map with the painted liver and spleen (scheme "trunk"), and name
            it in the manifest.
        workers: processes; one a core if None.
        progress: told of each case.

    Raises:
        DatasetError: no label map in the folder.
        UsageError: an option that makes no sense.
        OutputError: ``out`` holds something else or cannot be written.
    """
    if seed < 0 or every < 1 or (workers is not None and workers < 1):
        raise UsageError(f"seed {seed}, every {every}, workers {workers}", wanted="seed >= 0, every and workers >= 1")
    for value, known, word in ((phase, (None, *PHASES), "phase"), (appearance, APPEARANCES, "appearance")):
        if value not in known:
            raise UsageError(f"{word} {value!r}", wanted=f"one of {[k for k in known if k]}")
    out = Path(out)
    look = {"phase": phase, "appearance": appearance}
    scheme = "trunk" if organs else "kits"
    head = {"format": FORMAT, "made_by": "hilum paint", "seed": seed, "scheme": scheme, "every": every, **look}
    options: dict[str, Any] = {**look, "organs": organs}
    orders = [_Order(name, path, out, _seed(seed, name), every, options) for name, path in _sources(Path(labels))]
    earlier = earlier_facts(out, head)
    rows = {o.name: earlier[o.name] for o in orders if o.name in earlier and o.done}
    failures: dict[str, str] = {}
    _save(out, head, orders, rows)
    bar = progress.stage("Painting", len(orders))
    bar.step(len(rows))

    def finish(order: _Order, answer: dict[str, Any] | str) -> None:
        if isinstance(answer, str):
            failures[order.name] = answer
        else:
            rows[order.name] = answer
            _save(out, head, orders, rows)
        bar.step(note=order.name)

    todo = [order for order in orders if order.name not in rows]
    each(_paint, todo, min(len(todo), workers or cpu_count()), finish)
    return PaintedSet(tuple(o.name for o in orders if o.name in rows), failures)


def _sources(folder: Path) -> list[tuple[str, Path]]:
    """Name and file of each label map, in order of name."""
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder)
    files = [path for path in folder.iterdir() if path.is_file() and path.name.endswith(_ENDINGS)]
    files += [path for ending in _ENDINGS for path in folder.glob(f"*/segmentation{ending}")]
    found = sorted((case_name(path), path) for path in files)
    if not found:
        raise DatasetError(
            "holds no label map", where=folder, wanted="NAME.nii.gz or NAME/segmentation.nii.gz, as KiTS23 has them"
        )
    return found


def _seed(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _paint(order: _Order) -> dict[str, Any] | str:
    """Paint and write one case; the facts, or why it cannot be done. Runs in a process of its own."""
    try:
        volume = read_labels(order.source, SCHEMES["kits"])
        if order.every > 1:
            volume = _thinned(volume, order.every)
        case = paint_around(volume, order.seed, **order.options)
        write_scan(order.image, case.ct)
        if order.every > 1:
            write_labels(order.labels, volume)
        else:
            with written(order.labels) as part:
                shutil.copyfile(order.source, part)
        if case.organs is not None:
            write_labels(order.learnt, case.organs)
    except OutputError:
        raise
    except HilumError as error:
        return str(error)
    return case.facts


def _thinned(volume: Volume, every: int) -> Volume:
    """Every so many columns and rows of a label map; all slices stay."""
    codes = volume.codes
    step = np.array([1 if code in "IS" else every for code in codes])
    affine = np.array(volume.affine)
    affine[:3, :3] = affine[:3, :3] * step
    a, b, c = (slice(None, None, int(k)) for k in step)
    return Volume(volume.array[a, b, c], affine, volume.source, volume.header)


def _save(out: Path, head: dict[str, Any], orders: list[_Order], rows: dict[str, dict[str, Any]]) -> None:
    cases = [
        {
            "case": o.name,
            "image": f"{o.name}/imaging.nii.gz",
            "label": f"{o.name}/{o.learnt.name}",
            "patient": o.name,
            "facts": rows[o.name],
        }
        for o in orders
        if o.name in rows
    ]
    write_json(out / MANIFEST, {**head, "cases": cases})
