"""Label maps to measurements: anybody's label maps, many at once.

    DIR/<case>/measurements.json     one table a case
    DIR/<case>/report.html           its page
    DIR/<case>/case.json             which label map and scan it was
    DIR/measurements.csv             one row a case

Comes in: files, folders or globs of label maps, a label scheme, perhaps the scan of one. Goes out: the files above and
a MeasureRun. A case that fails is listed and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.cores import cpu_count
from hilum.errors import HilumError, InputError, OutputError, UsageError
from hilum.files import read_json, write_json
from hilum.judge.pairing import find_label_maps
from hilum.labels import LabelScheme, scheme_from
from hilum.pages.case import case_report
from hilum.progress import SILENT, Progress
from hilum.results.measure import measure, write_measurements, write_summary
from hilum.scans import ScanRef, find_scans, read_labels, read_scan
from hilum.volume import require_same_grid


@dataclass(frozen=True)
class MeasureRun:
    """What became of a run.

    Attributes:
        out: the output folder.
        done: case -> its measurements.
        failed: case -> why, in one sentence.
    """

    out: Path
    done: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0, or 1 if a case failed."""
        return 1 if self.failed else 0

    def text(self) -> str:
        """The end of the run, for people."""
        lines = [f"{len(self.done)} measured: {self.out / 'measurements.csv'}"]
        if self.failed:
            lines += [f"{len(self.failed)} failed:", *(f"  {name}: {why}" for name, why in self.failed.items())]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"out": str(self.out), "cases": dict(self.done), "failed": dict(self.failed)}


def measure_files(
    labels: Sequence[str],
    scheme: str,
    out: Path,
    *,
    scan: str | None = None,
    progress: Progress = SILENT,
) -> MeasureRun:
    """Measure label maps.

    Args:
        labels: files, folders or globs.
        scheme: a label scheme's name.
        out: the folder for results.
        scan: the CT that one label map belongs to, for densities and pictures.
        progress: where to tell.

    Raises:
        UsageError: no files, an unknown scheme, or a scan with several label maps.
        OutputError: ``out`` cannot be written, or holds a case's files that ``measure`` did not write.
    """
    known = scheme_from(scheme)
    refs = _label_maps(labels)
    if scan is not None and len(refs) != 1:
        raise UsageError(f"--scan with {len(refs)} label maps", wanted="one label map", fix="call once for each scan")
    _refuse_other_results(refs, out)
    done: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    bar = progress.stage("Measuring", len(refs))
    with ThreadPoolExecutor(max(1, min(cpu_count(), len(refs)))) as pool:
        futures = {pool.submit(_measure_one, ref, known, out, scan): ref for ref in refs}
        for future in as_completed(futures):
            ref = futures[future]
            try:
                done[ref.name] = future.result()
            except (HilumError, MemoryError) as error:
                failed[ref.name] = str(error) or "too little memory"
            bar.step(note=ref.name)
    done = {ref.name: done[ref.name] for ref in refs if ref.name in done}
    write_summary(out / "measurements.csv", done)
    return MeasureRun(out, done, failed)


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


def _measure_one(ref: ScanRef, scheme: LabelScheme, out: Path, scan: str | None) -> Mapping[str, Any]:
    labels = read_labels(ref.path, scheme)
    image = read_scan(scan) if scan is not None else None
    if image is not None:
        require_same_grid(image, labels)
    measurements = measure(labels, scheme, image)
    record = {"scheme": scheme.to_json(), "labels": str(ref.path.resolve()), "scan": scan and str(Path(scan).resolve())}
    write_json(out / ref.name / "case.json", record)
    write_measurements(out / ref.name / "measurements.json", measurements)
    case_report(out / ref.name / "report.html", image, labels, measurements, scheme, name=ref.name)
    return measurements


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
