"""A trained nnU-Net v2 model to a hilum model folder.

Comes in: a trainer's folder (``nnUNetTrainer__nnUNetPlans__3d_fullres``, with ``plans.json``, ``dataset.json`` and
``fold_*/checkpoint_final.pth``) or the data set's folder above it. Goes out: a model folder that segments scans as
``nnUNetv2_predict`` does: same network, same preparation, same tiles. No pickle is run, every tensor is accounted for,
and what hilum can't take is refused by its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.config import InferenceOptions
from hilum.errors import InputError, ModelError, UsageError
from hilum.exchange.nnunet_checkpoint import Checkpoint, read_checkpoint
from hilum.exchange.nnunet_labels import head_of, labels_of, steps_of
from hilum.exchange.nnunet_network import Planned, planned
from hilum.files import read_json
from hilum.labels import LabelScheme
from hilum.model import NetworkSpec, save_model

CHECKPOINTS = ("final", "best")


@dataclass(frozen=True)
class Imported:
    """What became of an import.

    Attributes:
        folder: the model folder.
        source: the trainer's folder.
        facts: network, configuration, folds, tensors taken and left aside, labels, post-processing.
        notes: what a person should know, in sentences.
    """

    folder: Path
    source: Path
    facts: dict[str, Any]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For people."""
        lines = [f"{self.folder}: {self.facts['network']} of {self.source.name}"]
        lines += [f"  {key}: {value}" for key, value in self.facts.items() if key != "network"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"folder": str(self.folder), "source": str(self.source), **self.facts, "notes": list(self.notes)}


def is_nnunet(path: Path) -> bool:
    """Whether a folder looks like a trained nnU-Net model, or like a folder of several."""
    return path.is_dir() and bool(_trainers(path))


def import_nnunet(
    path: str | Path,
    out: str | Path,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "final",
    scheme: LabelScheme | None = None,
    axes: str = "",
    postprocessing: str | Path | None = None,
) -> Imported:
    """Write a model folder from a trained nnU-Net v2 model.

    Args:
        path: a trainer's folder, or a data set's folder with exactly one in it.
        out: the model folder to write.
        folds: "0", "1", ..., "all"; empty takes all numbered folds that are there, or "all" where there is no other.
        checkpoint: "final" or "best".
        scheme: what the labels mean, instead of what ``dataset.json`` says; must have the same numbers.
        axes: axis codes of the arrays that the model was trained on ("SPL", "SAR", ...); "" does what nnU-Net does,
            which lists voxels as each file does.
        postprocessing: ``postprocessing.json`` as nnU-Net wrote it; None takes the one in the folder, if any.

    Raises:
        UsageError: no such folder, several to choose from, a fold that is not there.
        ModelError: something in it is damaged, or is nothing that hilum can do.
    """
    source = _trainer(Path(path))
    plans, dataset = _table(source / "plans.json"), _table(source / "dataset.json")
    names = _folds(source, folds, checkpoint)
    read = [read_checkpoint(source / f"fold_{name}" / f"checkpoint_{checkpoint}.pth") for name in names]
    configuration = _one_configuration(read, names, source)
    found = planned(plans, configuration, str(source / "plans.json"), axes)
    own = labels_of(dataset, str(source / "dataset.json"), str(plans.get("dataset_name", source.parent.name)), scheme)
    head = head_of(dataset)
    spec = _spec(found, own, head, dataset, source)
    steps, from_file = _postprocessing(source, own, postprocessing)
    axes_mirrored = read[0].mirror_axes
    inference = InferenceOptions(overlap=0.5, mirror=bool(axes_mirrored), mirror_axes=axes_mirrored)
    notes = _notes(source, dataset, found, from_file)
    facts = {
        "network": spec.name,
        "configuration": configuration,
        "trainer": read[0].trainer,
        "folds": names,
        "checkpoint": checkpoint,
        "epochs": [part.epoch for part in read],
        "tensors": len(read[0].weights),
        "second_names_left_aside": read[0].duplicates,
        "labels": {label.name: label.value for label in own.labels},
        "head": head,
        "mirror_axes": list(axes_mirrored),
        "axes": found.plan.conventions.axes,
        "postprocess": list(steps),
    }
    name = str(plans.get("dataset_name", source.parent.name))
    card = {
        "description": f"{name}, {configuration}, by nnU-Net v2 ({read[0].trainer})",
        "from": {"toolkit": "nnU-Net v2", "folder": source.name, "plans": plans.get("plans_name", ""), **facts},
        "notes": notes,
    }
    with tempfile.TemporaryDirectory() as aside:
        first = _first(source, found, aside, checkpoint, scheme, axes)
        save_model(out, spec, [part.weights for part in read], found.plan, own, inference, steps, card, first=first)
    return Imported(Path(out), source, facts, tuple(notes))


def _first(
    source: Path, found: Planned, aside: str, checkpoint: str, scheme: LabelScheme | None, axes: str
) -> Path | None:
    """The model before this one in a cascade, imported from the folder beside it."""
    if not found.previous:
        return None
    trainer, plans, _ = source.name.split("__") if source.name.count("__") == 2 else ("", "", "")
    beside = source.with_name(f"{trainer}__{plans}__{found.previous}")
    if not (beside / "plans.json").is_file():
        raise ModelError(
            f"is a cascade after {found.previous!r}, whose folder is not there",
            where=source,
            wanted=f"{beside.name} beside it",
            fix="copy it there too",
        )
    return import_nnunet(beside, Path(aside) / "first", checkpoint=checkpoint, scheme=scheme, axes=axes).folder


def _spec(found: Planned, scheme: LabelScheme, head: Any, dataset: Mapping[str, Any], source: Path) -> NetworkSpec:
    channels = dataset.get("channel_names") or dataset.get("modality") or {"0": "CT"}
    if len(channels) != 1:
        raise ModelError(
            f"has {len(channels)} image channels ({', '.join(str(x) for x in channels.values())})",
            where=source / "dataset.json",
            wanted="one: hilum segments CT",
        )
    outputs = len(scheme.regions) if head == "regions" else scheme.class_count
    extra = len(scheme.labels) if found.previous else 0
    return NetworkSpec(found.network, found.options, 1 + extra, outputs, found.plan.dims, head)


def _notes(source: Path, dataset: Mapping[str, Any], found: Planned, post: str) -> list[str]:
    channels = list((dataset.get("channel_names") or dataset.get("modality") or {"0": "CT"}).values())
    notes = []
    if str(channels[0]).upper() != "CT":
        notes.append(f"it was trained on {channels[0]!r}, not on CT")
    if found.plan.conventions.axes == "file":
        notes.append(
            "voxels are listed as each file does, as nnU-Net does; --axes fixes the order that the training scans had"
        )
    if post:
        notes.append(post)
    return notes


def _postprocessing(
    source: Path, scheme: LabelScheme, given: str | Path | None
) -> tuple[tuple[dict[str, Any], ...], str]:
    """Steps, and a sentence on where they came from or why there are none."""
    if given is not None:
        return steps_of(_table(Path(given)), scheme, str(given)), f"post-processing as {given} says"
    folders = [source, *sorted(source.glob("crossval_results_folds_*"))]
    files = [folder / "postprocessing.json" for folder in folders if (folder / "postprocessing.json").is_file()]
    if len(files) == 1:
        return steps_of(_table(files[0]), scheme, str(files[0])), f"post-processing as {files[0].name} says"
    if files:
        raise UsageError(
            f"{len(files)} files postprocessing.json",
            where=source,
            wanted="one",
            fix=f"say which: --postprocessing {files[0]}",
        )
    pickled = [folder for folder in folders if (folder / "postprocessing.pkl").is_file()]
    if pickled:
        return (
            (),
            "postprocessing.pkl was left aside (a pickle can run anything); nnU-Net writes postprocessing.json too",
        )
    return (), ""


def _one_configuration(read: Sequence[Checkpoint], names: Sequence[str], source: Path) -> str:
    found = {(part.configuration, part.mirror_axes) for part in read}
    if len(found) != 1:
        raise ModelError(f"folds {list(names)} differ in configuration or mirroring: {sorted(found)}", where=source)
    return read[0].configuration


def _folds(source: Path, wanted: Sequence[str], checkpoint: str) -> list[str]:
    if checkpoint not in CHECKPOINTS:
        raise UsageError(f"--checkpoint {checkpoint!r}", wanted=f"one of {list(CHECKPOINTS)}")
    there = sorted(
        file.parent.name.removeprefix("fold_") for file in source.glob(f"fold_*/checkpoint_{checkpoint}.pth")
    )
    if not there:
        others = sorted(file.name for file in source.glob("fold_*/checkpoint_*.pth"))
        raise ModelError(
            f"has no fold_*/checkpoint_{checkpoint}.pth",
            where=source,
            wanted="a trained model",
            fix=f"there are {sorted(set(others))}: choose with --checkpoint" if others else "train it first",
        )
    missing = [name for name in wanted if name not in there]
    if missing:
        raise UsageError(f"folds {missing} are not there", where=source, wanted=f"some of {there}")
    return list(wanted) or [name for name in there if name != "all"] or there


def _trainers(path: Path) -> list[Path]:
    if (path / "plans.json").is_file() and (path / "dataset.json").is_file():
        return [path]
    return sorted(file.parent for file in path.glob("*__*/plans.json") if (file.parent / "dataset.json").is_file())


def _trainer(path: Path) -> Path:
    if path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        path = path.parent
    found = _trainers(path)
    if not found:
        raise UsageError(
            "no trained nnU-Net model in this folder",
            where=path,
            wanted="a folder such as nnUNetTrainer__nnUNetPlans__3d_fullres with plans.json and dataset.json",
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} models in this folder", where=path, wanted=f"one of {[x.name for x in found]}")
    return found[0]


def _table(file: Path) -> dict[str, Any]:
    try:
        table = read_json(file)
    except InputError as error:
        raise ModelError(error.found, where=file, fix="copy it again") from None
    if not isinstance(table, dict):
        raise ModelError("is no table", where=file, wanted="a file of nnU-Net v2")
    return table
