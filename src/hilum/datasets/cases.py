"""What a data set is: cases, and what their labels mean.

Comes in: paths. Goes out: frozen records, checked once so that later stages need not ask again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.errors import DatasetError
from hilum.labels import LabelScheme


@dataclass(frozen=True)
class CaseRef:
    """One scan with its labels, not read yet.

    Attributes:
        name: unique in the data set; names output folders.
        image: a scan file or DICOM folder.
        labels: a label map on the scan's grid, or None where there is none.
        patient: cases of one patient are never split between training and validation.
        facts: the clinical record, where the data set has a table of them; JSON's own types.
    """

    name: str
    image: Path
    labels: Path | None
    patient: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Dataset:
    """All cases of a data set.

    Attributes:
        name: what people call it.
        cases: in a stable order.
        scheme: what the labels mean, or None if the data do not say.
    """

    name: str
    cases: tuple[CaseRef, ...]
    scheme: LabelScheme | None

    @property
    def labelled(self) -> tuple[CaseRef, ...]:
        """The cases that have labels."""
        return tuple(case for case in self.cases if case.labels is not None)

    def case(self, name: str) -> CaseRef:
        """The case with this name."""
        for case in self.cases:
            if case.name == name:
                return case
        raise DatasetError(
            f"has no case {name!r}", where=self.name, wanted=f"one of {[c.name for c in self.cases[:8]]}"
        )


def checked(name: str, cases: Iterable[CaseRef], scheme: LabelScheme | None, where: Path) -> Dataset:
    """A Dataset whose cases exist and have names of their own.

    Raises:
        DatasetError: no case, a name used twice, an unusable name, or missing files, naming them.
    """
    cases = tuple(cases)
    if not cases:
        raise DatasetError("has no cases", where=where, wanted="at least one image")
    twice = [f"{n!r} ({count} times)" for n, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise DatasetError(
            f"case names are used more than once: {_some(twice)}",
            where=where,
            wanted="a name of its own for each case",
            fix="rename the files, or give a manifest with a 'case' column",
        )
    unusable = [repr(case.name) for case in cases if case.name in ("", ".", "..") or set(case.name) & set("/\\:\0\n")]
    if unusable:
        raise DatasetError(f"case names that cannot be folder names: {_some(unusable)}", where=where, fix="rename them")
    files = [file for case in cases for file in (case.image, case.labels) if file is not None]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(files)} files do not exist: {_some(missing)}",
            where=where,
            fix="correct the manifest (its paths are relative to the manifest itself) or bring the files",
        )
    shared = [f"{one!r} and {other!r}" for one, other in _sharing(cases)]
    if shared:
        raise DatasetError(
            f"cases of different patients share an image: {_some(shared)}",
            where=where,
            wanted="an image of its own for each patient, lest one be trained on and held out",
            fix="remove the rows that are there twice, or give them one 'patient'",
        )
    return Dataset(name, cases, scheme)


def _sharing(cases: Iterable[CaseRef]) -> Iterator[tuple[str, str]]:
    """Cases whose image an earlier case of another patient has already."""
    first: dict[Path, CaseRef] = {}
    for case in cases:
        earlier = first.setdefault(case.image.absolute(), case)
        if earlier.patient != case.patient:
            yield earlier.name, case.name


def _some(items: list[str], count: int = 5) -> str:
    """The first few of a list, for messages."""
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")
