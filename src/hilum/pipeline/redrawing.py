"""A case's page drawn again from what lies in its folder.

Comes in: a folder that ``segment`` or ``measure_files`` wrote. Goes out: its ``report.html``, new. The scan is drawn if
it still lies where it was; without it the labels are drawn alone and the page says so.
"""

from __future__ import annotations

from pathlib import Path

from hilum.errors import InputError
from hilum.files import read_json
from hilum.labels import scheme_from
from hilum.pages.case import case_report
from hilum.scans import read_labels, read_scan


def redraw_case(folder: Path) -> Path:
    """Draw ``FOLDER/report.html`` again.

    Raises:
        InputError: the folder lacks ``case.json`` or what it names.
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
    scan = None
    if scan_file is not None and scan_file.exists():
        scan = read_scan(scan_file, series=options.get("series"), resample_tilt=bool(options.get("resample_tilt")))
    else:
        gone = f"The scan is no longer at {scan_file}: the labels are drawn without it."
        measurements["warnings"] = (
            [*measurements["warnings"], gone] if scan_file is not None else measurements["warnings"]
        )
    return case_report(
        folder / "report.html",
        scan,
        labels,
        measurements,
        scheme,
        model_card=record.get("card"),
        run=record.get("page"),
    )
