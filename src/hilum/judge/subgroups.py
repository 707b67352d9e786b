"""Subgroups of cases: lesion size, phase, sex, slice thickness, site, whatever a table says of them.

Comes in: a CSV with a column ``case`` (or ``patient``) and any others. Goes out: for each column its groups and the
cases in them. Numbers with more than six different values are cut into thirds of the cases; what is empty is no group.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum.errors import InputError

KEYS = ("case", "case_id", "name", "patient", "patient_id")
MOST_VALUES = 6
SMALLEST = 3


@dataclass(frozen=True)
class Group:
    """Cases that share a trait.

    Attributes:
        column: heading in the table.
        name: value or range.
        cases: their names.
    """

    column: str
    name: str
    cases: tuple[str, ...]


def read_groups(path: Path, cases: Sequence[str], patients: Mapping[str, str] | None = None) -> list[Group]:
    """The groups that a table makes of these cases.

    Args:
        path: CSV with headings; its first column of ``KEYS`` says which case (or patient) a row is of.
        cases: names to look for; others in the table do not matter.
        patients: case -> patient, for tables by patient.

    Raises:
        InputError: no such file or column, a name twice, or none of the cases in it.
    """
    rows = _rows(Path(path))
    key = next((name for name in rows[0] if name.strip().lower() in KEYS), None)
    if key is None:
        raise InputError(f"has the columns {list(rows[0])}", where=path, wanted=f"a column called {' or '.join(KEYS)}")
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row[key].strip()
        if name in table:
            raise InputError(f"names {name!r} twice", where=path, wanted="one row a case")
        table[name] = row
    found = {case: table.get(case) or table.get((patients or {}).get(case, case)) for case in cases}
    known = {case: row for case, row in found.items() if row is not None}
    if not known:
        raise InputError(
            f"names none of the {len(cases)} cases ({next(iter(table))!r} stands there, {cases[0]!r} was scored)",
            where=path,
            wanted="the names of the scored cases",
        )
    groups = []
    for column in rows[0]:
        if column != key:
            groups += _groups(column, {case: row[column].strip() for case, row in known.items()})
    return groups


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=path, wanted="a CSV with a column 'case'") from None
    reader = csv.DictReader(text.splitlines(), restval="", restkey="")
    rows = [{name: value for name, value in row.items() if name} for row in reader]
    if not rows:
        raise InputError("holds no rows", where=path, wanted="headings and one row a case")
    return rows


def _groups(column: str, values: Mapping[str, str]) -> list[Group]:
    """By value, or in thirds for numbers of many values; groups of fewer than ``SMALLEST`` cases are left out."""
    values = {case: value for case, value in values.items() if value}
    numbers = {case: _number(value) for case, value in values.items()}
    members: dict[str, list[str]] = {}
    if len(set(values.values())) > MOST_VALUES and all(np.isfinite(n) for n in numbers.values()):
        low, high = np.percentile([*numbers.values()], [100 / 3, 200 / 3]).tolist()
        names = (f"up to {low:.4g}", f"above {low:.4g} to {high:.4g}", f"above {high:.4g}")
        for case, n in numbers.items():
            members.setdefault(names[0 if n <= low else 1 if n <= high else 2], []).append(case)
        members = {name: members[name] for name in names if name in members}
    else:
        for case, value in values.items():
            members.setdefault(value, []).append(case)
        members = dict(sorted(members.items()))
    return [Group(column, name, tuple(cases)) for name, cases in members.items() if len(cases) >= SMALLEST]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
