"""Cases' pages drawn again from what lies in their folders.

Comes in: folders that ``segment`` or ``measure_files`` wrote. Goes out: each one's ``report.html``, new, ``report.pdf``
if asked for, and the page of all cases beside them. The scan is drawn if it still lies where it was; without it the
labels are drawn alone and the page says so. Several processes share the cases; one that fails is listed and the others
go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hilum.cores import cpu_count, process_pool
from hilum.errors import HilumError, InputError
from hilum.files import read_json
from hilum.labels import scheme_from
from hilum.pages.case import case_report
from hilum.pages.cohort import cohort_report
from hilum.pages.pdf import write_pdf
from hilum.progress import SILENT, Progress
from hilum.scans import read_labels, read_scan


@dataclass(frozen=True)
class RedrawRun:
    """What became of a run.

    Attributes:
        pages: what was written.
        failed: folder -> why, in one sentence.
    """

    pages: tuple[Path, ...]
    failed: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0, or 1 if a case failed."""
        return 1 if self.failed else 0

    def text(self) -> str:
        """The end of the run, for people."""
        lines = [str(page) for page in self.pages]
        if self.failed:
            lines += [f"{len(self.failed)} failed:", *(f"  {name}: {why}" for name, why in self.failed.items())]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"pages": [str(page) for page in self.pages], "failed": dict(self.failed)}


def redraw_case(folder: Path, *, pdf: bool = False) -> Path:
    """Draw ``FOLDER/report.html`` again, and ``report.pdf`` if asked for; the page's path.

    Raises:
        InputError: the folder lacks ``case.json`` or what it names.
        UsageError: ``pdf`` without the extra pdf.
    """
    record = read_json(folder / "case.json")
    try:
        scheme = scheme_from(record["scheme"])
        labels_file, scan_file = folder / record["labels"], Path(record["scan"]) if record["scan"] else None
        options = record.get("options", {})
    except (KeyError, TypeError):
        raise InputError(
            "does not say which scan and labels the page is about",
            where=folder / "case.json",
            fix="run hilum segment again with --overwrite, or hilum measure into a new folder",
        ) from None
    labels, measurements = read_labels(labels_file, scheme), read_json(folder / "measurements.json")
    if not isinstance(measurements, dict) or not {"organs", "lesions", "warnings"} <= measurements.keys():
        raise InputError("holds no measurements", where=folder / "measurements.json", fix="measure that case again")
    scan = None
    if scan_file is not None and scan_file.exists():
        scan = read_scan(scan_file, series=options.get("series"), resample_tilt=bool(options.get("resample_tilt")))
    else:
        gone = f"The scan is no longer at {scan_file}: the labels are drawn without it."
        measurements["warnings"] = (
            [*measurements["warnings"], gone] if scan_file is not None else measurements["warnings"]
        )
    page = case_report(
        folder / "report.html",
        scan,
        labels,
        measurements,
        scheme,
        model_card=record.get("card"),
        run=record.get("page"),
    )
    if pdf:
        write_pdf(page, folder / "report.pdf")
    return page


def case_folders(path: Path) -> list[Path]:
    """The cases in a folder: itself, or those right below it; empty if there are none."""
    if (path / "measurements.json").is_file() or (path / "case.json").is_file():
        return [path]
    return sorted(file.parent for file in path.glob("*/case.json")) if path.is_dir() else []


def redraw_cases(
    folders: Sequence[Path], *, pdf: bool = False, workers: int | None = None, progress: Progress = SILENT
) -> RedrawRun:
    """Draw many cases' pages again, and the page of each folder that holds several of them."""
    pages: dict[Path, Path] = {}
    failed: dict[str, str] = {}
    bar = progress.stage("Drawing", len(folders))
    for folder, page, why in _drawn(folders, pdf, workers):
        if page is None:
            failed[str(folder)] = why
        else:
            pages[folder] = page
        bar.step(note=folder.name)
    written = [pages[folder] for folder in folders if folder in pages]
    for parent in dict.fromkeys(folder.parent for folder in pages):
        if (parent / "summary.html").is_file() or sum(folder.parent == parent for folder in folders) > 1:
            lost = {Path(name).name: why for name, why in failed.items() if Path(name).parent == parent}
            written.append(_redraw_cohort(parent, lost))
    return RedrawRun(tuple(written), failed)


def _redraw_cohort(parent: Path, lost: Mapping[str, str]) -> Path:
    """The page of all cases of a folder, whether drawn again or not, and of those that could not be measured."""
    tables, failed = {}, dict(lost)
    for folder in case_folders(parent):
        try:
            table = read_json(folder / "measurements.json")
        except InputError:
            continue  # started, and never measured
        if folder.name not in lost and isinstance(table, dict) and {"organs", "lesions"} <= table.keys():
            tables[folder.name] = table
    try:
        earlier = read_json(parent / "failures.json")
    except InputError:
        earlier = {}
    if isinstance(earlier, dict):
        failed |= {name: str(why) for name, why in earlier.items() if name not in tables}
    return cohort_report(parent / "summary.html", tables, failed)


def _drawn(folders: Sequence[Path], pdf: bool, workers: int | None) -> Iterator[tuple[Path, Path | None, str]]:
    count = max(1, min(workers or min(cpu_count(), 8), len(folders)))
    work = partial(_tried, pdf=pdf)
    if count == 1:
        yield from map(work, folders)
        return
    with process_pool(count) as pool:
        futures: dict[Future[tuple[Path, Path | None, str]], Path] = {pool.submit(work, f): f for f in folders}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield futures[future], None, "its process was killed (too little memory?); use fewer --workers"


def _tried(folder: Path, *, pdf: bool) -> tuple[Path, Path | None, str]:
    try:
        return folder, redraw_case(folder, pdf=pdf), ""
    except (HilumError, MemoryError) as error:
        return folder, None, str(error) or "too little memory"
    except Exception as error:  # one case must not end five hundred
        text = " ".join(str(error).split())[:300]
        return folder, None, f"a fault in hilum itself ({type(error).__name__}: {text}); please report it"
