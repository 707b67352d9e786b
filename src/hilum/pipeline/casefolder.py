"""One case's folder of results: what is in it, whose results they are, whether they are all there.

    DIR/<case>/labels.nii.gz, measurements.json, report.html     the results
    DIR/<case>/probabilities_<label>.nii.gz                      if asked for; uint8, 255 means 1
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

FORMAT = 1
RESULTS = ("labels.nii.gz", "measurements.json", "report.html")
State = Literal["absent", "done", "other", "foreign"]


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

    def state(self) -> State:
        """Whether the wanted results are there.

        ``absent``: nothing finished, or made from a scan that has changed since; ``done``: all there; ``other``:
        finished results of another model or other options; ``foreign``: results that hilum has no record of.
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
        """Mark the folder as ours and remove what an earlier run left in it."""
        self._write("started", {})
        try:
            for name in RESULTS:
                (self.path / name).unlink(missing_ok=True)
            for file in self.path.glob("probabilities_*.nii.gz"):
                file.unlink()
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
        ("foreign", "label maps or pages that hilum segment has no record of"),
    ):
        names = [folder.path.name for folder in folders if folder.state() == state]
        if names:
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise OutputError(
                f"holds {found} ({some})", where=out, fix="choose another --out, or add --overwrite to replace them"
            )


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
