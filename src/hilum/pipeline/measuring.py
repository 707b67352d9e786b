"""Label maps to measurements: anybody's label maps, many at once.

    DIR/<case>/...            see ``measured_case``
    DIR/measurements.csv      one row a case: lesions, organs, warnings
    DIR/summary.csv           the same with the quality gate in front, what to look at first
    DIR/summary.html          all cases on one page, outliers first
    DIR/failures.json         which label maps could not be measured, and why

Comes in: files, folders or globs of label maps, a label scheme, perhaps their scans, probabilities, folds, an earlier
date. Goes out: the files above and a MeasureRun. Cases are measured by several processes. One that fails is listed and
the others go on; one whose results are there already is left as it is, so that a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum.cores import cpu_count, process_pool
from hilum.errors import HilumError, InputError, OutputError, UsageError
from hilum.files import read_json, write_json
from hilum.judge.pairing import find_label_maps
from hilum.labels import LabelScheme, scheme_from
from hilum.pages.cohort import cohort_report, write_cohort_csv
from hilum.pipeline.measured_case import Task, measure_case, probabilities_beside
from hilum.progress import SILENT, Progress
from hilum.results.measure import write_summary
from hilum.results.renal import MARGIN_MM
from hilum.scans import ScanRef, find_scans

Done = tuple[str, dict[str, Any] | None, str]  # case, its table, or why there is none


@dataclass(frozen=True)
class MeasureRun:
    """What became of a run.

    Attributes:
        out: the output folder.
        done: case -> its measurements, earlier runs' too.
        failed: case -> why, in one sentence.
        skipped: cases whose results were there already.
    """

    out: Path
    done: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]
    skipped: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or 1 if a case failed."""
        return 1 if self.failed else 0

    def text(self) -> str:
        """The end of the run, for people."""
        look = [name for name, table in self.done.items() if table.get("quality", {}).get("look")]
        lines = [f"{len(self.done)} measured: {self.out / 'summary.html'}"]
        if self.skipped:
            lines.append(f"{len(self.skipped)} were there already and stay as they are (--overwrite makes them again)")
        if look:
            some = ", ".join(look[:5]) + (f" and {len(look) - 5} more" if len(look) > 5 else "")
            lines.append(f"look at {some}: summary.html says why")
        if self.failed:
            lines += [f"{len(self.failed)} failed:", *(f"  {name}: {why}" for name, why in self.failed.items())]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "out": str(self.out),
            "cases": dict(self.done),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
        }


def measure_files(
    labels: Sequence[str],
    scheme: str,
    out: Path,
    *,
    scan: str | None = None,
    second: Path | None = None,
    probabilities: Path | None = None,
    folds: Sequence[Path] = (),
    previous: Path | None = None,
    previous_scan: Path | None = None,
    days: float | None = None,
    margin_mm: float = MARGIN_MM,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> MeasureRun:
    """Measure label maps.

    Args:
        labels: files, folders or globs.
        scheme: a label scheme's name.
        out: the folder for results.
        scan: the CT that one label map belongs to, or a folder of scans with the cases' names.
        second: another phase of that scan, on the same grid, for enhancement.
        probabilities: folder of ``probabilities_<label>.nii.gz`` of one label map; those beside it are found alone.
        folds: label maps of other folds, or folders of them with the cases' names.
        previous: an earlier case folder or label map of the same patient (one label map only).
        previous_scan: the CT of that date.
        days: between the dates, if the scans do not tell.
        margin_mm: of healthy tissue around a renal tumour, for the resected volume.
        workers: processes; None takes one for each core.
        overwrite: measure every case anew.
        progress: where to tell.

    Raises:
        UsageError: no files, an unknown scheme, a negative margin, or options for one label map with several.
        OutputError: ``out`` cannot be written, or holds a case's files that ``measure`` did not write.
    """
    known = scheme_from(scheme)
    if not margin_mm >= 0:
        raise UsageError(f"--margin {margin_mm:g}", wanted="0 mm or more")
    refs = _label_maps(labels)
    singles = {"second": second, "probabilities": probabilities, "previous": previous}
    for option, value in {**singles, "previous-scan": previous_scan}.items():
        if value is not None and len(refs) != 1:
            raise UsageError(
                f"--{option} with {len(refs)} label maps", wanted="one label map", fix="call once for each"
            )
    if previous is None and (previous_scan is not None or days is not None):
        raise UsageError("--previous-scan or --days without --previous", wanted="--previous CASE_DIR|LABELS")
    scans = _scans(refs, scan)
    common: dict[str, Any] = {
        "second": second,
        "previous": previous,
        "previous_scan": previous_scan,
        "days": days,
        "margin_mm": margin_mm,
    }
    tasks = [Task(ref.name, ref.path, out, scheme, scans.get(ref.name), **common) for ref in refs]
    tasks = [
        replace(task, probabilities=_probabilities(task.labels, probabilities, known), folds=_folds(task.name, folds))
        for task in tasks
    ]
    _refuse_other_results(refs, out)
    done: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    skipped = [task.name for task in tasks if not overwrite and _done(task)]
    done.update({name: read_json(out / name / "measurements.json") for name in skipped})
    todo = [task for task in tasks if task.name not in done]
    bar = progress.stage("Measuring", len(todo))
    for name, table, why in _measured(todo, workers):
        if table is None:
            failed[name] = why
        else:
            done[name] = table
        bar.step(note=name)
    ordered = {ref.name: done[ref.name] for ref in refs if ref.name in done}
    failed = {ref.name: failed[ref.name] for ref in refs if ref.name in failed}
    _write_together(out, ordered, failed)
    return MeasureRun(out, ordered, failed, tuple(skipped))


def _write_together(out: Path, tables: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """What tells of all cases."""
    write_summary(out / "measurements.csv", tables)
    write_cohort_csv(out / "summary.csv", tables)
    write_json(out / "failures.json", failed)
    cohort_report(out / "summary.html", tables, failed)


def _measured(tasks: Sequence[Task], workers: int | None) -> Iterator[Done]:
    """Tables as they come; a process that dies fails its cases, not the run."""
    count = max(1, min(workers or min(cpu_count(), 8), len(tasks)))
    if count == 1:
        yield from map(_tried, tasks)
        return
    # new processes and not forks: the caller may have threads
    with process_pool(count) as pool:
        futures: dict[Future[Done], Task] = {pool.submit(_tried, task): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                why = "its process was killed (too little memory?); run the same command again with fewer --workers"
                yield futures[future].name, None, why


def _tried(task: Task) -> Done:
    """The case's table, or one sentence."""
    try:
        return task.name, measure_case(task), ""
    except HilumError as error:
        return task.name, None, str(error)
    except MemoryError:
        return task.name, None, "too little memory"
    except Exception as error:  # one case must not end five hundred
        text = " ".join(str(error).split())[:300]
        return task.name, None, f"a fault in hilum itself ({type(error).__name__}: {text}); please report it"


def _done(task: Task) -> bool:
    try:
        return task.done() and isinstance(read_json(task.folder / "measurements.json"), dict)
    except HilumError:
        return False


def _label_maps(patterns: Sequence[str]) -> list[ScanRef]:
    """Files and globs as ``find_scans`` names them; folders as evaluations do (``case/segmentation.nii.gz``)."""
    files = [pattern for pattern in patterns if not Path(pattern).is_dir()]
    refs = find_scans(files) if files else []
    for folder in (Path(pattern) for pattern in patterns if Path(pattern).is_dir()):
        refs += [ScanRef(name, path) for name, path in find_label_maps(folder).items()]
    names = [ref.name for ref in refs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"several label maps are called {twice[0]!r}", fix="measure them into folders of their own")
    return refs


def _scans(refs: Sequence[ScanRef], scan: str | None) -> dict[str, Path]:
    """Case -> scan: the one scan of the one label map, or those that carry the cases' names."""
    if scan is None:
        return {}
    if len(refs) == 1 and not (Path(scan).is_dir() and (Path(scan) / refs[0].name).exists()):
        return {refs[0].name: Path(scan)}
    if not Path(scan).is_dir() and not any(mark in scan for mark in "*?["):
        raise UsageError(
            f"--scan with {len(refs)} label maps",
            wanted="one label map, or a folder of scans with the label maps' names",
            fix="call once for each scan",
        )
    found = {ref.name: ref.path for ref in find_scans([scan])}
    missing = [ref.name for ref in refs if ref.name not in found]
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UsageError(f"--scan {scan} has no scan for {some}", wanted="a scan with each label map's name")
    return found


def _probabilities(labels: Path, folder: Path | None, scheme: LabelScheme) -> tuple[tuple[str, Path], ...]:
    if folder is None:
        return probabilities_beside(labels, scheme)
    found = probabilities_beside(folder / "labels.nii.gz", scheme)
    if not found:
        raise UsageError(
            f"--probabilities {folder} holds none of this scheme",
            wanted=f"probabilities_{scheme.labels[0].name.replace(' ', '_')}.nii.gz and so on",
            fix="write them with hilum segment --probabilities",
        )
    return found


def _folds(name: str, folds: Sequence[Path]) -> tuple[Path, ...]:
    """This case's label map of every fold."""
    found = []
    for fold in folds:
        maps = find_label_maps(fold) if fold.is_dir() else {name: fold}
        if name not in maps:
            raise UsageError(f"--folds {fold} has no label map for {name}", wanted="one for each case")
        found.append(maps[name])
    return tuple(found)


def _refuse_other_results(refs: Sequence[ScanRef], out: Path) -> None:
    """Raise OutputError if a case's files are there and ``case.json`` does not say that they are of this label map."""
    names = []
    for ref in refs:
        folder = out / ref.name
        try:
            record = read_json(folder / "case.json")
        except InputError:
            record = None
        ours = isinstance(record, dict) and "model" not in record and record.get("labels") == str(ref.path.resolve())
        if not ours and any((folder / name).exists() for name in ("case.json", "measurements.json", "report.html")):
            names.append(ref.name)
    if names:
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise OutputError(
            f"holds results that are not of these label maps ({some})", where=out, fix="choose another --out"
        )
