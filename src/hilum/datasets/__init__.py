"""WHICH SCANS EXIST: every kind of data set as a list of cases.

Comes in: the name of a kind (a file in this folder, or a dotted name of anybody's own module) and a path. Goes out: a
``Dataset``: cases with image, labels and patient, and the label scheme where the data tell it. No voxel is read here.

A new kind is one file ``datasets/NAME.py`` with a docstring and ``open_dataset(path) -> Dataset``. A public set also
has ``FACTS`` (licence, citation, mirrors, traps) and ``listing(path)``: its cases as they should be, files or none.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from hilum import plugins
from hilum.datasets.cases import CaseRef, Dataset
from hilum.datasets.facts import Facts, RemoteFile, Trap
from hilum.datasets.folds import make_folds, read_folds, write_folds
from hilum.errors import DatasetError, UsageError

__all__ = [
    "CaseRef",
    "Dataset",
    "Facts",
    "RemoteFile",
    "Trap",
    "describe",
    "facts_of",
    "list_dataset",
    "make_folds",
    "names",
    "open_dataset",
    "read_folds",
    "write_folds",
]

_NO_KINDS = ("cases", "facts", "folds", "kits_layout", "pairing")


def names() -> list[str]:
    """The kinds of data set that ship with hilum."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_KINDS)


def describe() -> dict[str, str]:
    """Each kind with the first sentence of its module."""
    found = {}
    for name in names():
        text = importlib.import_module(f"hilum.datasets.{name}").__doc__ or ""
        found[name] = text.strip().split("\n\n")[0].replace("\n", " ")
    return found


def facts_of(name: str) -> Facts | None:
    """What is known about a public set; None for kinds that are no public set (``folder``, ``phantom``, own modules).

    Raises:
        UsageError: no such kind.
    """
    facts = getattr(_module(name), "FACTS", None)
    return facts if isinstance(facts, Facts) else None


def list_dataset(name: str, path: str | Path) -> Dataset:
    """The cases as they should be, even if files of them are missing; for looking a set over before it is used.

    Raises:
        UsageError: no such kind.
        DatasetError: nothing of such a data set is there.
    """
    path = Path(path).expanduser()
    look = getattr(_module(name), "listing", None)
    if look is None:
        return open_dataset(name, path)
    if not path.exists():
        raise DatasetError("no such file or folder", where=path)
    found = look(path)
    assert isinstance(found, Dataset), found
    return found


def open_dataset(name: str, path: str | Path) -> Dataset:
    """Open a data set.

    Args:
        name: one of ``names()``, or a dotted module name with an ``open_dataset(path)`` of its own.
        path: the data set's folder or manifest.

    Raises:
        UsageError: no such kind.
        DatasetError: the path does not hold such a data set.
    """
    path = Path(path).expanduser()
    module = _module(name)
    if not path.exists():
        raise DatasetError("no such file or folder", where=path)
    dataset = module.open_dataset(path)
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"open_dataset of {name!r} returned {type(dataset).__name__}", wanted="a hilum.datasets.Dataset"
        )
    return dataset


def _module(name: str) -> Any:
    if name in names():
        return importlib.import_module(f"hilum.datasets.{name}")
    if not plugins.is_own("datasets", name):
        known = names() + plugins.names("datasets")
        raise UsageError(f"no kind of data set {name!r}", wanted=f"one of {known}, or a dotted module name")
    module = plugins.load("datasets", name, "data.dataset", "a module with open_dataset(path)")
    if not hasattr(module, "open_dataset"):
        raise UsageError(f"module {name!r} has no open_dataset(path)", fix="write that function in it")
    return module
