"""How data sets lie on disk: one writer per layout, each as the real set is, so that readers meet the real traps.

Comes in: made cases. Goes out: files in a folder. A layout is a module of this package with

    NAMES     what ``--layout`` calls it; the first is its own name
    SCHEMES   which labels it can carry; the first is its default
    place(out, number) -> Place          where a case's files go and what it is called
    write(place, case)                   one case, in a process of its own
    finish(out, rows)                    what the set as a whole needs (kits.json, dataset.json), or nothing
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_MODULES = ("folder", "nnunet", "kits23", "lits", "msd", "ircadb", "dicom")


@dataclass(frozen=True)
class Place:
    """Where one case of a set lies.

    Attributes:
        name: what the set calls the case.
        image: the image file, or the folder of its DICOM slices.
        labels: the label file, or the folder of masks.
    """

    name: str
    image: Path
    labels: Path


def layouts() -> tuple[str, ...]:
    """Every name that a layout goes by, in a fixed order."""
    return (*_MODULES, "kits")


def layout(name: str) -> ModuleType:
    """The module of a layout. ``name`` is one of ``layouts()``."""
    return importlib.import_module(f"hilum.phantom.layouts.{'kits23' if name == 'kits' else name}")
