"""synthetic CT written by `hilum data phantom`.

Comes in: the folder. Goes out: its cases, with the scheme that its manifest names. It makes nothing.
"""

from __future__ import annotations

from pathlib import Path

from hilum.datasets.cases import CaseRef, Dataset, checked
from hilum.errors import DatasetError, InputError
from hilum.files import read_json
from hilum.labels import SCHEMES
from hilum.phantom.manifest import FORMAT, MANIFEST


def open_dataset(path: Path) -> Dataset:
    """The cases of a set made by ``hilum.phantom.write_set``.

    Raises:
        DatasetError: there is no manifest of such a set, it is damaged, or files are missing.
    """
    file = path if path.is_file() else path / MANIFEST
    if not file.is_file():
        raise DatasetError(
            f"has no {MANIFEST}",
            where=path,
            wanted="a folder written by 'hilum data phantom'",
            fix="make one, or open your own scans with --data folder=PATH",
        )
    try:
        table = read_json(file)
        version, scheme = table["format"], table["scheme"]
        cases = [
            CaseRef(str(row["case"]), file.parent / row["image"], file.parent / row["label"], str(row["patient"]))
            for row in table["cases"]
        ]
    except (InputError, KeyError, TypeError) as error:
        raise DatasetError(
            f"is no manifest of a phantom set ({error})",
            where=file,
            fix="make the set again, or open the folder with --data folder=PATH",
        ) from None
    if version != FORMAT or scheme not in SCHEMES:
        raise DatasetError(
            f"has format {version!r} and scheme {scheme!r}",
            where=file,
            wanted=f"format {FORMAT} and one of {sorted(SCHEMES)}",
            fix="make the set again with this version of hilum",
        )
    return checked(file.parent.absolute().name, cases, SCHEMES[scheme], file)
