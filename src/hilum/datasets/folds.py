"""Which patients are held out when: k folds, by patient, even in a weight such as tumour volume.

Comes in: cases, a count, a seed, perhaps weights. Goes out: one tuple of case names a fold; a JSON file and back, so
that every method is judged on the same split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hilum.datasets.cases import CaseRef
from hilum.errors import DatasetError, InputError, UsageError
from hilum.files import read_json, write_json

FORMAT = 1
Folds = tuple[tuple[str, ...], ...]


def make_folds(cases: Iterable[CaseRef], count: int, seed: int, weights: Mapping[str, float] | None = None) -> Folds:
    """Deal patients into ``count`` folds of nearly equal size; each case is held out once.

    Patients are sorted by weight (the largest of their cases') and taken in blocks of ``count``; each block gives one
    patient to each fold in random order, so that folds agree in weight from the lightest to the heaviest. Without
    weights the order is random.

    Args:
        cases: each with a name and a patient.
        count: number of folds, at least 2.
        seed: the same seed gives the same folds, whatever the order of the cases.
        weights: by case name; a case without one counts as 0.

    Returns:
        For each fold the names of its held-out cases, sorted.

    Raises:
        UsageError: fewer than 2 folds, or weights of unknown cases.
        DatasetError: fewer patients than folds.
    """
    cases = sorted(cases, key=lambda case: case.name)
    if count < 2 or seed < 0:
        raise UsageError(f"{count} folds with seed {seed}", wanted="at least 2 folds, a seed of at least 0")
    weights = dict(weights or {})
    strangers = sorted(set(weights) - {case.name for case in cases})
    if strangers:
        raise UsageError(f"weights for cases that are not there: {strangers[:5]}", wanted="weights by case name")
    patients: dict[str, list[str]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(case.name)
    if len(patients) < count:
        raise DatasetError(
            f"{len(patients)} patients cannot be split into {count} folds",
            wanted="at least one patient a fold",
            fix=f"set data.folds to at most {len(patients)}" if len(patients) > 1 else "bring more patients",
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    names = sorted(patients)
    order = [names[i] for i in rng.permutation(len(names))]  # ties in weight fall at random
    order.sort(key=lambda patient: max(weights.get(name, 0.0) for name in patients[patient]))
    folds: list[list[str]] = [[] for _ in range(count)]
    for start in range(0, len(order), count):
        for fold, patient in zip(rng.permutation(count), order[start : start + count], strict=False):
            folds[fold] += patients[patient]
    return tuple(tuple(sorted(fold)) for fold in folds)


def write_folds(path: str | Path, folds: Folds) -> None:
    """Write folds as JSON."""
    write_json(path, {"format": FORMAT, "folds": [list(fold) for fold in folds]})


def read_folds(path: str | Path, cases: Iterable[CaseRef] | None = None) -> Folds:
    """Read folds; with ``cases``, check that they fit.

    Raises:
        DatasetError: not such a file, a case in two folds, a patient in two folds, or other cases than given.
    """
    try:
        table: Any = read_json(path)
        version = table["format"]
        folds = tuple(tuple(str(name) for name in fold) for fold in table["folds"])
    except (InputError, KeyError, TypeError) as error:
        raise DatasetError(f"is no file of folds ({error})", where=path, fix="make the folds again") from None
    names = [name for fold in folds for name in fold]
    twice = sorted({name for name in names if names.count(name) > 1})
    if version != FORMAT or len(folds) < 2 or twice:
        raise DatasetError(
            f"has format {version!r}, {len(folds)} folds, and cases in two folds: {twice[:5]}",
            where=path,
            wanted=f"format {FORMAT}, at least 2 folds, each case once",
        )
    if cases is not None:
        patient = {case.name: case.patient for case in cases}
        if set(patient) != set(names):
            raise DatasetError(
                f"lists {len(names)} cases, of which the data set lacks {sorted(set(names) - set(patient))[:5]}; not "
                f"listed are {sorted(set(patient) - set(names))[:5]}",
                where=path,
                wanted="the cases of this data set",
                fix="delete the file to make new folds",
            )
        home: dict[str, int] = {}
        for i, fold in enumerate(folds):
            for name in fold:
                if home.setdefault(patient[name], i) != i:
                    raise DatasetError(f"patient {patient[name]!r} is in two folds", where=path, fix="make new folds")
    return folds
