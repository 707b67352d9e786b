"""What a model has seen: the names of its training cases, for the audit of an evaluation.

Comes in: a model folder, a training run's folder, a file of folds, or a list of names. Goes out: names of cases (or of
patients). It opens no network and no image.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from hilum.datasets.folds import read_folds
from hilum.errors import InputError, UsageError
from hilum.files import read_json


def read_trained(path: Path, fold: int | None = None) -> tuple[str, ...]:
    """Names of the cases that a model was trained on.

    Args:
        path: MODEL or RUN (its model's card says), ``folds.json``, or a text or CSV file with one name a line, of which
            the first column counts.
        fold: of ``folds.json``: the fold that was held out; None takes every case, as each fold's model saw all others.

    Raises:
        InputError: nothing there that names training cases.
        UsageError: no such fold.
    """
    path = Path(path)
    if path.is_dir():
        return _from_card(path)
    if path.suffix == ".json":
        folds = read_folds(path)
        if fold is not None and not 0 <= fold < len(folds):
            raise UsageError(f"fold {fold}", where=path, wanted=f"0 to {len(folds) - 1}")
        return tuple(name for i, names in enumerate(folds) if i != fold for name in names)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read ({error})", where=path, wanted="a list of case names, a model, or folds.json"
        ) from None
    rows = [row[0].strip() for row in csv.reader(text.splitlines()) if row]
    names = tuple(name for name in rows if name and not name.startswith("#"))
    if not names:
        raise InputError("names no case", where=path, wanted="one case or patient a line")
    return names[1:] if names[0].lower() in ("case", "patient", "name") else names


def trained_by(predictions: Path) -> tuple[str, ...]:
    """What the model has seen that made these predictions, as the ``run.json`` of ``hilum segment`` names it.

    Returns nothing where no such record or card is there: whoever else made them says so by ``read_trained``.
    """
    try:
        record: Any = read_json(Path(predictions) / "run.json")
        return _from_card(Path(record["model"]["folder"]))
    except (InputError, KeyError, TypeError):
        return ()


def _from_card(folder: Path) -> tuple[str, ...]:
    for file in (folder / "model.json", folder / "model" / "model.json"):
        if file.is_file():
            table: Any = read_json(file)
            try:
                names = tuple(str(name) for name in table["card"]["trained_on"]["cases"])
            except (KeyError, TypeError):
                names = ()
            if names:
                return names
            raise InputError(
                "its card does not name the training cases",
                where=file,
                wanted="card.trained_on.cases",
                fix="give a list of names, or the run's folds.json",
            )
    raise InputError("holds no model", where=folder, wanted="model.json or model/model.json")
