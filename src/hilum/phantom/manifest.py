"""The file that says what a set of synthetic patients holds, and that lets an interrupted run go on.

Comes in: a folder and the head of the order (seed, layout, options). Goes out: what an earlier run finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hilum.errors import InputError, OutputError
from hilum.files import read_json

FORMAT = 1
MANIFEST = "manifest.json"


def earlier_facts(out: Path, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Facts of the cases that an earlier run of the same order has finished, by name; none in a new or empty folder.

    Raises:
        OutputError: the folder holds something else, a manifest that cannot be read, or a set of another order.
    """
    file = out / MANIFEST
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError("is not an empty folder", where=out, fix="choose a new folder")
        return {}
    try:
        found = read_json(file)
        same = {key: found.get(key) for key in head} == head
        facts = {str(case["case"]): dict(case["facts"]) for case in found["cases"]}
    except (InputError, AttributeError, KeyError, TypeError):
        raise OutputError("holds a manifest that cannot be read", where=file, fix="choose a new folder") from None
    if not same:
        raise OutputError(
            "holds a set made with another seed or other options",
            where=file,
            wanted=str(head),
            fix="choose a new folder, or delete this one",
        )
    return facts
