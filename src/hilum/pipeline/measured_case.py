"""One label map measured and drawn: what a worker does, and how it is known that it was done.

    DIR/<case>/measurements.json     all numbers
    DIR/<case>/report.html           its page
    DIR/<case>/thumbnail.jpg         for the page of many cases
    DIR/<case>/case.json             which label map, scan and options; started or done

Comes in: a ``Task``, which names files and nothing else, so that any process can do it. Goes out: the table. A case is
done if ``case.json`` says so for the same task and no file has changed since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hilum import __version__
from hilum.errors import InputError
from hilum.files import plain, read_json, write_json
from hilum.labels import LabelScheme, scheme_from
from hilum.pages.case import case_report
from hilum.pipeline.casefolder import FORMAT, scan_stamp
from hilum.results.everything import Earlier, measure_all
from hilum.results.measure import measure, write_measurements
from hilum.results.renal import MARGIN_MM
from hilum.scans import read_labels, read_scan, read_volume
from hilum.volume import Volume, require_same_grid

RESULTS = ("measurements.json", "report.html", "thumbnail.jpg")


@dataclass(frozen=True)
class Task:
    """What to measure, by files.

    Attributes:
        name: of the case.
        labels: its label map.
        out: the folder of all cases.
        scheme: a label scheme's name, or its JSON.
        scan: the CT.
        second: another phase on the same grid, for enhancement.
        probabilities: label name -> file; uint8, 255 means 1.
        folds: label maps of other folds or readers.
        previous: an earlier case folder or label map of the same patient.
        previous_scan: the CT of that date, where it is a label map.
        days: between the dates.
        margin_mm: of healthy tissue around a renal tumour, for the resected volume.
    """

    name: str
    labels: Path
    out: Path
    scheme: str
    scan: Path | None = None
    second: Path | None = None
    probabilities: tuple[tuple[str, Path], ...] = ()
    folds: tuple[Path, ...] = ()
    previous: Path | None = None
    previous_scan: Path | None = None
    days: float | None = None
    margin_mm: float = MARGIN_MM

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out / self.name

    def record(self) -> dict[str, Any]:
        """The facts that decide the results."""
        files = [self.labels, self.scan, self.second, self.previous, self.previous_scan, *self.folds]
        files += [path for _, path in self.probabilities]
        stamps = {str(path.resolve()): scan_stamp(path) for path in files if path is not None}
        task = {
            key: value for key, value in asdict(self).items() if key not in ("name", "out", "labels", "scan", "scheme")
        }
        record: dict[str, Any] = plain(
            {
                "format": FORMAT,
                "hilum": __version__,
                "scheme": scheme_from(self.scheme).to_json(),
                "labels": str(self.labels.resolve()),
                "scan": None if self.scan is None else str(self.scan.resolve()),
                "task": task,
                "stamps": stamps,
            }
        )
        return record

    def done(self) -> bool:
        """Whether the results of this very task are there."""
        try:
            there = read_json(self.folder / "case.json")
            same = isinstance(there, dict) and there == {**self.record(), "state": "done"}
        except InputError:
            return False
        return same and all((self.folder / name).is_file() for name in RESULTS)


def measure_case(task: Task) -> dict[str, Any]:
    """Measure and draw one case; its table.

    Raises:
        HilumError: whatever is wrong with its files.
    """
    scheme = scheme_from(task.scheme)
    labels = read_labels(task.labels, scheme)
    scan = read_scan(task.scan) if task.scan is not None else None
    if scan is not None:
        require_same_grid(scan, labels)
    second = read_scan(task.second) if task.second is not None else None
    shares = {name: read_volume(path) for name, path in task.probabilities}
    folds = [read_labels(path, scheme) for path in task.folds]
    earlier = None if task.previous is None else _earlier(task, scheme, scan)
    more: dict[str, Any] = {"probabilities": shares, "folds": folds, "earlier": earlier, "margin_mm": task.margin_mm}
    table = measure_all(labels, scheme, scan, second=second, **more)
    record = task.record()
    write_json(task.folder / "case.json", {**record, "state": "started"})
    write_measurements(task.folder / "measurements.json", table)
    case_report(task.folder / "report.html", scan, labels, table, scheme, name=task.name)
    write_json(task.folder / "case.json", {**record, "state": "done"})
    return table


def probabilities_beside(labels: Path, scheme: LabelScheme) -> tuple[tuple[str, Path], ...]:
    """The files that ``segment --probabilities`` wrote beside a label map, by label name."""
    if not labels.name.startswith("labels."):
        return ()
    names = {label.name.replace(" ", "_").replace("/", "_"): label.name for label in scheme.labels}
    files = sorted(labels.parent.glob("probabilities_*.nii.gz"))
    found = ((file.name.removeprefix("probabilities_").removesuffix(".nii.gz"), file) for file in files)
    return tuple((names[stem], file) for stem, file in found if stem in names)


def _earlier(task: Task, scheme: LabelScheme, scan: Volume | None) -> Earlier:
    """The earlier date from a case folder of ours or from a label map."""
    path = task.previous
    assert path is not None
    if not path.exists():
        raise InputError("no such case folder or label map", where=path, fix="check --previous")
    record: Mapping[str, Any] = {}
    if path.is_dir():
        record = _case_record(path)
        labels = read_labels(path / record["labels"], scheme)
        table = read_json(path / "measurements.json")
        if not isinstance(table, dict) or "lesions" not in table or "organs" not in table:
            raise InputError("holds no measurements", where=path / "measurements.json", fix="measure that case again")
    else:
        labels, table = read_labels(path, scheme), None
    image_path = task.previous_scan or (Path(record["scan"]) if record.get("scan") else None)
    image = read_scan(image_path) if image_path is not None and image_path.exists() else None
    if table is None:
        if image is not None:
            require_same_grid(image, labels)
        table = measure(labels, scheme, image)
    days = task.days
    if days is None:
        then, now = _date(image, image_path), _date(scan, task.scan)
        days = float((now - then).days) if then is not None and now is not None else None
    return Earlier(labels, table, days, path.name.removesuffix(".gz").removesuffix(".nii"))


def _case_record(path: Path) -> dict[str, Any]:
    record = read_json(path / "case.json")
    if not isinstance(record, dict) or not isinstance(record.get("labels"), str):
        raise InputError("does not say which label map it is about", where=path / "case.json", fix="measure it again")
    return record


def _date(scan: Volume | None, path: Path | None) -> date | None:
    """The study's date: of the DICOM header, or of a JSON file beside the scan (``ct.json`` for ``ct.nii.gz``)."""
    told = "" if scan is None else str(scan.header.get("study_date", ""))
    if not told and path is not None:
        stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        sidecar = path.with_name(f"{stem}.json")
        facts = read_json(sidecar) if sidecar.is_file() else {}
        keys = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "study_date")
        told = next((str(facts[key]) for key in keys if isinstance(facts, dict) and facts.get(key)), "")
    digits = re.match(r"(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})", told)
    try:
        return date(*map(int, digits.groups())) if digits else None
    except ValueError:
        return None
