"""MSD: a CT task of the Medical Segmentation Decathlon, such as Task03_Liver or Task08_HepaticVessel.

Comes in: a task's folder with its ``dataset.json``. Goes out: its training cases, and the label scheme: hilum's own for
liver and hepatic vessels, else what the file says. No voxel is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hilum.datasets.cases import CaseRef, Dataset, checked
from hilum.datasets.facts import Facts, RemoteFile, Trap
from hilum.errors import DatasetError, HilumError, InputError, UsageError
from hilum.files import read_json
from hilum.labels import SCHEMES, LabelScheme, scheme_from

TABLE = "dataset.json"
_AT = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
# CT tasks: MD5 of the tar as MONAI's DecathlonDataset publishes it, and about how large it is
TASKS = {
    "Task03_Liver": ("a90ec6c4aa7f6a3d087205e23d4e6397", 28_925_891_584),
    "Task06_Lung": ("8afd997733c7fc0432f71255ba4e52dc", 8_500_000_000),
    "Task07_Pancreas": ("4f7080cfca169fa8066d17ce6eb061e4", 11_500_000_000),
    "Task08_HepaticVessel": ("641d79e80ec66453921d997fbf12a29c", 8_700_000_000),
    "Task09_Spleen": ("410d4a301da4e5b2f6f86ec3ddba524e", 1_500_000_000),
    "Task10_Colon": ("bad7a188931dc2f6acf72b08eb6202d0", 5_800_000_000),
}
_KNOWN = {"liver": "lits", "hepaticvessel": "hepatic_vessel"}  # the file names that begin so, and their scheme


def _remote(numbers: Iterable[int] | None, variant: str) -> list[RemoteFile]:
    if variant not in TASKS:
        raise UsageError(f"MSD task {variant!r}", wanted=f"one of {list(TASKS)}", fix="e.g. msd:Task03_Liver")
    if numbers is not None:
        raise UsageError("--cases with msd", wanted="no choice of cases: a task is served as one tar")
    md5, size = TASKS[variant]
    return [RemoteFile(f"{_AT}/{variant}.tar", f"{variant}.tar", md5=md5, bytes=size, unpack=True)]


FACTS = Facts(
    "Medical Segmentation Decathlon",
    "131 labelled (Task03_Liver), 303 labelled (Task08_HepaticVessel), others",
    0.0,
    "CC BY-SA 4.0",
    "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022) 4128",
    "http://medicaldecathlon.com",
    "dataset.json, imagesTr/liver_0.nii.gz, labelsTr/liver_0.nii.gz; one folder a task",
    traps=(
        Trap(
            "msd-is-lits",
            "Task03_Liver holds the scans of LiTS (and with them 3D-IRCADb), with corrected spacing: a model trained "
            "on one must not be tested on the other.",
            "overlap",
            value=("lits", "ircadb"),
        ),
        Trap("msd-hidden", "The tars hold macOS files named ._liver_0.nii.gz, which are no images: hilum skips them."),
        Trap(
            "msd-liver-label",
            "Label 1 of Task03_Liver is liver without its lesions; LiTS scores liver with them: say which you report.",
        ),
    ),
    remote=_remote,
    variants=tuple(TASKS),
)


def listing(path: Path) -> Dataset:
    """The training cases as they should be; files may be missing.

    Raises:
        DatasetError: no ``dataset.json`` of a CT task.
    """
    file = path if path.is_file() else path / TABLE
    if not file.is_file():
        inside = sorted(item.parent.name for item in path.glob(f"Task*/{TABLE}")) if path.is_dir() else []
        raise DatasetError(
            f"has no {TABLE}" + (f", but holds {', '.join(inside)}" if inside else ""),
            where=path,
            wanted="the folder of one task",
            fix=f"give {path / inside[0]}" if inside else "'hilum data fetch msd:Task03_Liver --out DIR' gets one",
        )
    try:
        table: Any = read_json(file)
        modality = {str(value) for value in dict(table.get("modality", {})).values()}
        rows = [(str(row["image"]), str(row["label"])) for row in table["training"]]
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"is no dataset.json of MSD ({error})", where=file, fix="fetch the task again") from None
    if modality and modality != {"CT"}:
        raise DatasetError(f"is a task of {', '.join(sorted(modality))}", where=file, wanted="a task of CT")
    cases = []
    for image, label in rows:
        name = Path(image).name.removesuffix(".gz").removesuffix(".nii")
        cases.append(CaseRef(name, file.parent / image, file.parent / label, name))
    kind = rows[0][0].rpartition("/")[2].split("_")[0].lower() if rows else ""
    return Dataset(file.parent.absolute().name, tuple(cases), _scheme(table, kind, file))


def _scheme(table: Mapping[str, Any], kind: str, file: Path) -> LabelScheme:
    try:
        named = {int(value): str(name) for value, name in dict(table["labels"]).items()}
        values = {name: value for value, name in named.items() if value != 0}
        if kind in _KNOWN and tuple(sorted(values.values())) == SCHEMES[_KNOWN[kind]].values:
            return SCHEMES[_KNOWN[kind]]
        return scheme_from({"name": str(table.get("name", "msd")), "values": values})
    except (HilumError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f'its "labels" cannot be understood ({error})', where=file, wanted='{"0": "background", "1": "liver"}'
        ) from None


def open_dataset(path: Path) -> Dataset:
    """The training cases of an MSD task.

    Raises:
        DatasetError: no such task, or files are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
