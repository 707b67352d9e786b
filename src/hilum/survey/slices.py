"""A DATA SET AS PICTURES: slices of every scan and its labels as PNG, through a window, at one size, for 2-D networks.

Comes in: a kind of data set, its path, and how to cut. Goes out: ``OUT/images/CASE/0034.png`` and ``OUT/labels/CASE/
0034.png`` (8 bits; labels carry their own values; the number is the slice's place from the feet, the back or the right,
from 0), ``slices.csv`` with a row a slice, ``slices.json`` with what was asked for and each case's geometry, by which
``survey.stack`` finds back. A run that was killed goes on; cases that cannot be read are listed and the rest goes on.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hilum import __version__
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import plain, write_json, write_text, written_folder
from hilum.labels import LabelScheme, count_labels
from hilum.progress import SILENT, Progress
from hilum.scans import read_scan
from hilum.survey.describing import read_any_labels
from hilum.survey.inspecting import Order
from hilum.survey.looking import forget, look_at
from hilum.survey.planes import AXES, CROPS, Axis, Crop, Cut, crop_box
from hilum.survey.selecting import MEMORY as WHERE
from hilum.survey.selecting import select
from hilum.survey.verify import beside, cases_of
from hilum.volume import Volume, require_same_grid

FORMAT = 1
MEMORY = "sliced.jsonl"
MOST_PIXELS = 4096


@dataclass(frozen=True)
class SliceOptions:
    """How slices are cut.

    Attributes:
        axis: "axial", "coronal" or "sagittal".
        window_hu: what becomes black and white.
        gamma: contrast after the window: x ** gamma (MONAI's AdjustContrast).
        resize: pixels a side, or 0 for one pixel a voxel; pictures that are not square are stretched.
        crop: see ``survey.planes.crop_box``.
        empty: share of the slices without labels that is kept, evenly spread: 1 all, 0 none. Cases without a label
            map keep all.
    """

    axis: Axis = "axial"
    window_hu: tuple[float, float] = (-160.0, 240.0)
    gamma: float = 1.0
    resize: int = 0
    crop: Crop = "none"
    empty: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.window_hu
        wrong = [
            (self.axis not in AXES, f"axis {self.axis!r}", f"one of {list(AXES)}"),
            (not low < high, f"window {low:g},{high:g}", "LOW,HIGH in HU, such as -100,400"),
            (not 0.05 <= self.gamma <= 20, f"gamma {self.gamma:g}", "0.05 to 20"),
            (self.resize != 0 and not 8 <= self.resize <= MOST_PIXELS, f"resize {self.resize}", f"8 to {MOST_PIXELS}"),
            (self.crop not in CROPS, f"crop {self.crop!r}", f"one of {list(CROPS)}"),
            (not 0 <= self.empty <= 1, f"empty {self.empty:g}", "a share from 0 (drop all) to 1 (keep all)"),
        ]
        for bad, found, wanted in wrong:
            if bad:
                raise UsageError(found, wanted=wanted)


@dataclass(frozen=True)
class Slicing(Order):
    """What one process is asked to do."""

    options: SliceOptions = SliceOptions()
    out: Path = Path()


def export_slices(
    name: str,
    path: Path,
    out: Path,
    options: SliceOptions,
    *,
    where: str = "",
    scheme: LabelScheme | None = None,
    labels_only: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write slices.

    Args:
        name, path: as for ``datasets.open_dataset``; a folder of scans or of label maps will do.
        out: what to fill; not inside the data set.
        options: how.
        where: which cases (``survey.where``).
        scheme: what the labels mean, where the data do not say.
        labels_only: label maps were handed on alone: ask for no image.
        workers: processes.
        progress: counts cases.

    Returns:
        What ``slices.json`` holds.

    Raises:
        DatasetError: no such data set there, or no case is meant.
        UsageError: ``out`` lies in the data set.
    """
    beside(out, path)
    dataset = cases_of(name, path, labels_only)
    scheme = scheme or dataset.scheme
    memory = out / WHERE
    dataset, chosen = select(
        dataset, where, memory, scheme=scheme, labels_only=labels_only, workers=workers, progress=progress
    )
    orders = [Slicing(case, scheme, (), labels_only, options, out) for case in dataset.cases]
    names = {order.case.name for order in orders}
    forget(out / MEMORY, lambda record: _holds(record, out, names))
    asked = ["slices", FORMAT, plain(asdict(options))]
    records = look_at(orders, out / MEMORY, workers, progress, f"Slicing {name}", slice_case, asked)
    report: dict[str, Any] = {
        "format": FORMAT,
        "hilum": __version__,
        "dataset": name,
        "path": str(path),
        "where": where,
        "options": asdict(options),
        "scheme": scheme.to_json() if scheme is not None else None,
        "failed": {**chosen.failed, **{r["case"]: r["failed"] for r in records if r["failed"]}},
        "cases": {r["case"]: r["geometry"] for r in records if not r["failed"]},
    }
    write_text(out / "slices.csv", _table([record for record in records if not record["failed"]], scheme))
    write_json(out / "slices.json", plain(report))
    return report


def slice_case(order: Slicing) -> dict[str, Any]:
    """Write one case's slices, whole or not at all; a damaged file becomes "failed"."""
    case, options = order.case, order.options
    record: dict[str, Any] = {"case": case.name, "patient": case.patient, "failed": None}
    try:
        scan = None if order.labels_only else read_scan(case.image)
        labels = None if case.labels is None else read_any_labels(case, order.scheme)
        source = scan if scan is not None else labels
        if source is None:
            raise DatasetError("there is neither an image nor a label map", where=case.name)
        inside = None if scan is None else scan.oriented()
        map_ = None if labels is None else labels.oriented()
        if inside is not None and map_ is not None:
            require_same_grid(inside, map_)
        cut = Cut.of(options.axis, crop_box(options.crop, inside, map_), options.resize)
        kept = kept_slices(cut, map_, options.empty)
        record["slices"] = _write(order, cut, kept, inside, map_)
        record["geometry"] = {
            "shape": list(source.shape),
            "affine": source.affine.tolist(),
            "cut": cut.to_json(),
            "slices": kept,
            "scan": inside is not None,
            "labelled": map_ is not None,
        }
    except HilumError as error:
        record["failed"] = error.sentence()
    except MemoryError:
        record["failed"] = "it does not fit into memory; fewer processes at a time (--workers 1) may do"
    return record


def kept_slices(cut: Cut, labels: Volume | None, share: float) -> list[int]:
    """Places of the slices to write: all with labels in the box, and that share of the others, evenly spread."""
    if labels is None or share == 1:
        return list(cut.indices)
    empty = [index for index in cut.indices if not cut.plane(labels.array, index).any()]
    count = round(share * len(empty))
    some = {empty[((2 * i + 1) * len(empty)) // (2 * count)] for i in range(count)}
    return [index for index in cut.indices if index not in set(empty) - some]


def _write(
    order: Slicing, cut: Cut, kept: Sequence[int], scan: Volume | None, labels: Volume | None
) -> list[dict[str, Any]]:
    """The pictures; a row for each."""
    options, name = order.options, order.case.name
    rows: list[dict[str, Any]] = [{"slice": index, "voxels": {}} for index in kept]
    if labels is not None:
        with written_folder(order.out / "labels" / name) as folder:
            for row in rows:
                picture = cut.labels(cut.plane(labels.array, row["slice"]))
                counts = count_labels(picture)
                row["voxels"] = {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value}
                Image.fromarray(np.ascontiguousarray(picture)).save(folder / file_name(row["slice"]), compress_level=4)
    if scan is not None:
        with written_folder(order.out / "images" / name) as folder:
            for row in rows:
                picture = cut.grey(cut.plane(scan.array, row["slice"]), options.window_hu, options.gamma)
                Image.fromarray(picture).save(folder / file_name(row["slice"]), compress_level=4)
    return rows


def file_name(index: int) -> str:
    """``0034.png``."""
    return f"{index:04d}.png"


def _holds(record: Mapping[str, Any], out: Path, names: set[str]) -> bool:
    """Whether a case is still asked for and all its pictures are there; those of a case that is not are removed."""
    folders = [out / part / record["case"] for part in ("images", "labels")]
    if record["case"] not in names:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return False
    if record["failed"]:
        return True
    wanted = {file_name(row["slice"]) for row in record["slices"]}
    there = [record["geometry"]["scan"], record["geometry"]["labelled"]]
    pairs = zip(folders, there, strict=True)
    return all(not part or (f.is_dir() and {p.name for p in f.iterdir()} == wanted) for f, part in pairs)


def _table(records: Sequence[Mapping[str, Any]], scheme: LabelScheme | None) -> str:
    """A row a slice: its pictures relative to OUT, case, patient, place, pixels of each label."""
    values = list(scheme.values) if scheme is not None else []
    values = values or sorted({int(v) for r in records for row in r["slices"] for v in row["voxels"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "case", "patient", "slice", *(f"pixels_{value}" for value in values)])
    for record in records:
        for row in record["slices"]:
            name = f"{record['case']}/{file_name(row['slice'])}"
            counts = {int(value): count for value, count in row["voxels"].items()}
            label = f"labels/{name}" if record["geometry"]["labelled"] else ""
            image = f"images/{name}" if record["geometry"]["scan"] else ""
            fields = [image, label, record["case"], record["patient"], row["slice"]]
            writer.writerow([*fields, *(counts.get(value, 0) for value in values)])
    return text.getvalue()
