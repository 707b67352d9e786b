"""One case's folder of results: what is in it, whose results they are, whether they are all there.

    DIR/<case>/labels.nii.gz, measurements.json, report.html     the results
    DIR/<case>/probabilities_<label>.nii.gz                      if asked for; uint8, 255 means 1
    DIR/<case>/uncertainty_entropy.nii.gz                        with them: 255 where all labels are equally likely
    DIR/<case>/uncertainty_disagreement.nii.gz                   with them, of several folds or models
    DIR/<case>/case.json                                         from which scan, model, options; started or done

Comes in: the folder and the scan, model and options whose results are wanted. Goes out: whether they are there already,
may be written, or would overwrite something else. ``case.json`` is written before the first result and after the last,
so that a run that was killed is known from one that is done and from a folder that hilum did not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hilum.errors import InputError, OutputError, ScanError
from hilum.files import cannot_write, plain, read_json, write_json
from hilum.scans.finding import natural_key

FORMAT = 1
RESULTS = ("labels.nii.gz", "measurements.json", "report.html")
State = Literal["absent", "done", "other", "other scan", "foreign"]


@dataclass(frozen=True)
class CaseFolder:
    """Where a case's results go.

    Attributes:
        path: the folder.
        scan: the file or folder that is segmented.
        model: name and hash of the model.
        options: what else decides the results.
    """

    path: Path
    scan: Path
    model: Mapping[str, str]
    options: Mapping[str, Any]

    @property
    def labels(self) -> Path:
        """The label map."""
        return self.path / "labels.nii.gz"

    @property
    def measurements(self) -> Path:
        """The measurements."""
        return self.path / "measurements.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    def probabilities(self, label: str) -> Path:
        """One label's probabilities."""
        return self.path / f"probabilities_{label.replace(' ', '_').replace('/', '_')}.nii.gz"

    def uncertainty(self, name: str) -> Path:
        """The "entropy" of the probabilities, or the "disagreement" of folds or models."""
        return self.path / f"uncertainty_{name}.nii.gz"

    def state(self) -> State:
        """Whether the wanted results are there.

        ``absent``: nothing finished, or made from a scan that has changed since; ``done``: all there; ``other``:
        finished results of another model or other options; ``other scan``: of a scan that lay elsewhere (equal names
        are no sign of one patient: many scans are called ``ct.nii.gz``); ``foreign``: results that hilum has no record
        of.
        """
        record = self.record()
        if record is None:
            return "foreign" if any((self.path / name).exists() for name in RESULTS) else "absent"
        if record.get("state") != "done":
            return "absent"
        if record.get("model", {}).get("hash") != self.model["hash"] or record.get("options") != plain(
            dict(self.options)
        ):
            return "other"
        if record.get("scan") != str(self.scan.resolve()):
            return "other scan"
        whole = all((self.path / name).is_file() for name in RESULTS)
        return "done" if whole and record.get("scan_stamp") == scan_stamp(self.scan) else "absent"

    def record(self) -> dict[str, Any] | None:
        """What ``case.json`` holds, or None if there is none (or none that can be read)."""
        try:
            record = read_json(self.path / "case.json")
        except InputError:
            return None
        return record if isinstance(record, dict) and record.get("format") == FORMAT else None

    def begin(self) -> None:
        """Mark the folder as ours and remove what an earlier run left in it, parts of killed ones too."""
        self._write("started", {})
        try:
            for name in RESULTS:
                (self.path / name).unlink(missing_ok=True)
            for pattern in ("probabilities_*.nii.gz", "uncertainty_*.nii.gz", ".part-*"):
                for file in self.path.glob(pattern):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def finish(self, facts: Mapping[str, Any]) -> None:
        """All results are written: say so, with what is known about them."""
        self._write("done", facts)

    def _write(self, state: str, facts: Mapping[str, Any]) -> None:
        record = {
            "format": FORMAT,
            "state": state,
            "scan": str(self.scan.resolve()),
            "scan_stamp": scan_stamp(self.scan),
            "model": dict(self.model),
            "options": dict(self.options),
            **facts,
        }
        write_json(self.path / "case.json", plain(record))


def refuse_other_results(folders: list[CaseFolder], out: Path) -> None:
    """Raise OutputError if any folder holds results that are not ours to replace."""
    for state, found in (
        ("other", "results of another model or of other options"),
        ("other scan", "results of other scans with the same names"),
        ("foreign", "label maps or pages that hilum segment has no record of"),
    ):
        names = [folder.path.name for folder in folders if folder.state() == state]
        if names:
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise OutputError(
                f"holds {found} ({some})", where=out, fix="choose another --out, or add --overwrite to replace them"
            )


def refuse_other_tables(out: Path) -> None:
    """Raise OutputError if ``out`` holds a ``run.json`` or ``summary.csv`` that no earlier run of ours wrote."""
    names = [name for name in ("run.json", "summary.csv") if (out / name).exists()]
    try:
        record = read_json(out / "run.json")
    except InputError:
        record = None
    if names and not (isinstance(record, dict) and "model" in record and "cases" in record):
        raise OutputError(
            f"holds a {' and a '.join(names)} that hilum segment did not write",
            where=out,
            fix="choose another --out, or add --overwrite to replace them",
        )


def finished_cases(out: Path) -> dict[str, dict[str, Any]]:
    """Case -> measurements, for every finished case in ``out``, whichever run it is from; in natural order."""
    found = {}
    for file in sorted(out.glob("*/case.json"), key=lambda path: natural_key(path.parent.name)):
        try:
            record, measurements = read_json(file), read_json(file.with_name("measurements.json"))
        except InputError:
            continue  # a case that is to be made again, or a folder of somebody else's
        if isinstance(record, dict) and record.get("format") == FORMAT and record.get("state") == "done":
            found[file.parent.name] = measurements
    return found


def scan_stamp(path: Path) -> dict[str, int]:
    """What changes when a scan changes: number of files, bytes, newest modification (ns)."""
    try:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        facts = [file.stat() for file in files]
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror or error})", where=path) from None
    return {
        "files": len(facts),
        "bytes": sum(fact.st_size for fact in facts),
        "modified_ns": max((fact.st_mtime_ns for fact in facts), default=0),
    }
