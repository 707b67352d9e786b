"""A DATA SET LOOKED OVER: every file read whole, what is wrong said in classes, corrected copies written beside.

Comes in: a kind of data set and its path. Goes out: ``OUT/verify.json``, ``verify.txt``, ``verify.html``, and with
``fix`` the folder ``OUT/fixed``. What was looked at is remembered in ``OUT/looked_at.jsonl``, so that a second call is
quick and an interrupted one goes on. The data set itself is never touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import __version__
from hilum.datasets import CaseRef, Dataset, facts_of, list_dataset
from hilum.datasets.folder import MANIFESTS
from hilum.datasets.folds import read_folds
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import plain, write_json, write_text
from hilum.labels import LabelScheme
from hilum.pages.verifying import verify_page
from hilum.progress import SILENT, Progress
from hilum.scans import find_scans, find_series
from hilum.survey import leaks
from hilum.survey.findings import CODES, KINDS
from hilum.survey.fix import plans_of, write_fixed
from hilum.survey.inspecting import Order
from hilum.survey.looking import look_at

FORMAT = 1
MEMORY = "looked_at.jsonl"


def verify(
    name: str,
    path: Path,
    out: Path,
    *,
    against: Sequence[tuple[str, Path]] = (),
    folds: Path | None = None,
    scheme: LabelScheme | None = None,
    labels_only: bool = False,
    fix: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Look a data set over.

    Args:
        name, path: as for ``datasets.open_dataset``; files may be missing.
        out: where reports and corrected copies go; not inside the data set.
        against: other sets that must not share patients with this one; they also tell true spacings.
        folds: a file of folds to look for leakage in.
        scheme: what the labels mean, where the data do not say or say it wrongly.
        labels_only: do not ask for images (label maps were handed on alone).
        fix: write corrected copies of what is fixable.
        workers: processes.
        progress: counts cases.

    Returns:
        What ``verify.json`` holds.

    Raises:
        DatasetError: no such data set there.
        UsageError: ``out`` is the data set itself, or lies in it.
    """
    beside(out, path)
    dataset = cases_of(name, path, labels_only)
    scheme = scheme or dataset.scheme
    facts = facts_of(name)
    traps = facts.traps if facts is not None else ()
    orders = [Order(case, scheme, traps, labels_only) for case in dataset.cases]
    records = look_at(orders, out / MEMORY, workers, progress, f"Verifying {name}")
    leakage = leaks.known(name) + leaks.within(records)
    for other_name, other_path in against:
        other = cases_of(other_name, other_path)
        memory = out / f"looked_at_{other_name}.jsonl"
        asked = [Order(case, other.scheme, ()) for case in other.cases]
        others = look_at(asked, memory, workers, progress, f"Looking at {other_name}")
        leakage += leaks.between(name, records, other_name, others)
        _tell_spacing(records, others, other_name)
    if folds is not None:
        leakage += leaks.folds_leak(records, read_folds(folds))
    report = _report(name, path, dataset, scheme, records, leakage, labels_only)
    if fix:
        report["fixed"] = write_fixed(dataset.cases, records, scheme, out / "fixed", progress)
    write_json(out / "verify.json", plain(report))
    write_text(out / "verify.txt", as_text(report) + "\n")
    verify_page(report, out / "verify.html")
    return report


def beside(out: Path, path: Path) -> None:
    """Refuse to write into a data set: copies in it would be taken for cases.

    Raises:
        UsageError: ``out`` is the data set's folder or lies in it.
    """
    inside = path.expanduser().resolve()
    if out.resolve() == inside or (inside.is_dir() and out.resolve().is_relative_to(inside)):
        where = "is the data set itself" if out.resolve() == inside else "lies in the data set"
        raise UsageError(f"--out {out} {where}", wanted="a folder beside it", fix="e.g. --out ../verified")


def cases_of(name: str, path: Path, labels_only: bool = False) -> Dataset:
    """The cases as they should be; a ``folder`` without pairs is its scans, or its label maps where only these count.

    DICOM folders beside the pairs of a ``folder`` are cases too, without label maps, unless it has a manifest.

    Raises:
        DatasetError, ScanError: nothing is there.
    """
    try:
        dataset = list_dataset(name, path)
        if name == "folder" and path.is_dir() and not labels_only and not any((path / m).is_file() for m in MANIFESTS):
            return _with_series(dataset, path)
        return dataset
    except DatasetError:
        if name != "folder" or not path.is_dir() or not any(path.iterdir()):
            raise
        try:
            scans = find_scans([str(path)])
        except HilumError:
            scans = []
        if not scans:
            raise
        cases = tuple(CaseRef(s.name, s.path, s.path if labels_only else None, s.name) for s in scans)
        return Dataset(path.absolute().name, cases, None)


def _with_series(dataset: Dataset, path: Path) -> Dataset:
    """The cases, and the DICOM folders that no case names."""
    known, named = {case.image for case in dataset.cases}, {case.name for case in dataset.cases}
    beside = [found for found in find_series(path) if found.path not in known]
    names = [f"{s.path.parent.name}_{s.name}" if s.name in named else s.name for s in beside]
    more = tuple(CaseRef(n, s.path, None, n) for n, s in zip(names, beside, strict=True))
    return replace(dataset, cases=(*dataset.cases, *more))


def _tell_spacing(records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], other_name: str) -> None:
    """Where another copy of a scan tells the true spacing, a false one becomes fixable."""
    for record in records:
        unknown = [f for f in record["findings"] if f["code"] == "spacing-unknown"]
        told = leaks.true_spacing(record, others) if unknown else None
        for finding in unknown if told is not None else []:
            assert told is not None
            spacing, case = told
            size = "x".join(f"{v:.4g}" for v in spacing)
            is_labels = finding["file"] == record["files"]["labels"]
            finding.update(
                {
                    "class": CODES["false-spacing"][0],
                    "code": "false-spacing",
                    "text": f"claims 1 mm along every axis; {case} of {other_name}, the same scan, has {size} mm",
                    "fix": "--fix sets that spacing",
                    "plan": {"do": "spacing", "file": "labels" if is_labels else "image", "spacing_mm": spacing},
                }
            )


def _report(
    name: str,
    path: Path,
    dataset: Dataset,
    scheme: LabelScheme | None,
    records: Sequence[dict[str, Any]],
    leakage: Sequence[Mapping[str, Any]],
    labels_only: bool,
) -> dict[str, Any]:
    classes = {kind: [r["case"] for r in records if _worst(r) == kind] for kind in KINDS}
    codes = Counter(f["code"] for record in records for f in record["findings"])
    facts = facts_of(name)
    return {
        "format": FORMAT,
        "hilum": __version__,
        "dataset": name,
        "path": str(path),
        "labels_only": labels_only,
        "scheme": scheme.to_json() if scheme is not None else None,
        "licence": facts.licence if facts is not None else "",
        "summary": {
            "cases": len(records),
            "clean": sum(1 for r in records if not r["findings"]),
            **{kind: len(cases) for kind, cases in classes.items()},
            "fixable_now": sum(1 for r in records if plans_of(r)),
        },
        "codes": {
            code: {"class": CODES[code][0], "what": CODES[code][1], "cases": codes[code]}
            for code in CODES
            if codes[code]
        },
        "leakage": list(leakage),
        "traps": [{"code": t.code, "text": t.text} for t in (facts.traps if facts else ()) if t.check == "note"],
        "cases": list(records),
    }


def _worst(record: Mapping[str, Any]) -> str:
    """The worst class of a case's findings, "" if it has none."""
    found = {finding["class"] for finding in record["findings"]}
    return next((kind for kind in KINDS if kind in found), "")


def as_text(report: Mapping[str, Any], most: int | None = None) -> str:
    """The report as plain text: what is broken first, cases with the same finding together.

    Args:
        report: as ``verify`` returns it.
        most: cases named of each finding; all if None.
    """
    total = report["summary"]
    lines = [
        f"{report['dataset']} at {report['path']}: {total['cases']} cases, {total['clean']} without any finding; "
        + ", ".join(f"{total[kind]} {kind}" for kind in KINDS)
    ]
    for kind in KINDS:
        rows: dict[str, list[str]] = {}
        for record in report["cases"]:
            for finding in record["findings"]:
                if finding["class"] == kind:
                    rows.setdefault(finding["code"], []).append(f"    {record['case']}: {_line(finding)}")
        for code, told in rows.items():
            lines.append(f"{kind}: {code} ({CODES[code][1]}), {len(told)}")
            lines += told[:most]
            if most is not None and len(told) > most:
                lines.append(f"    and {len(told) - most} more in verify.txt")
    for leak in report["leakage"]:
        lines.append(f"{'known' if leak['code'] == leaks.KNOWN else 'leakage'}: {leak['text']}")
    lines += [f"known: {trap['text']}" for trap in report["traps"]]
    for entry in report.get("fixed", []):
        done = "; ".join(item["what"] for item in entry["done"])
        lines.append(f"fixed: {entry['case']}: {entry.get('failed', done)}")
    return "\n".join(lines)


def _line(finding: Mapping[str, Any]) -> str:
    where = f"{Path(finding['file']).name}: " if finding["file"] else ""
    return f"{where}{finding['text']}" + (f"; {finding['fix']}" if finding["fix"] else "")
