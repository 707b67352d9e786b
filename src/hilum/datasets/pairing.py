"""Which image goes with which label map, told from folder and file names.

Comes in: the files of a folder. Goes out: pairs with a case name, and what found no partner. It opens no file.

A file's *role* comes from its folder (``imagesTr``, ``labels``, ...) or from a word at the beginning or end of its name
(``volume-3``, ``x_seg``). What is left of the path without the role is the *key*; equal keys are partners.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hilum.scans import case_name
from hilum.scans.finding import holds_results_only

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_FOLDERS = {"imagestr", "images", "image", "imgs", "scans", "cts", "ct", "volumes"}
LABEL_FOLDERS = {"labelstr", "labels", "label", "masks", "mask", "segmentations", "segs", "seg", "gt", "annotations"}
TEST_FOLDERS = {"imagests", "labelsts"}
IMAGE_WORDS = {"ct", "image", "img", "imaging", "volume", "vol", "scan"}
LABEL_WORDS = {"seg", "segmentation", "segmentations", "label", "labels", "mask", "masks", "gt", "truth", "annotation"}
HOW_NAMES_LOOK = (
    "name partners alike: images/x.nii.gz + labels/x.nii.gz, imagesTr/x_0000.nii.gz + labelsTr/x.nii.gz, "
    "volume-3.nii + segmentation-3.nii, x_ct.nii.gz + x_seg.nii.gz, or case_x/imaging.nii.gz + "
    "case_x/segmentation.nii.gz; or list them in a CSV with the columns image,label"
)
_CHANNEL = re.compile(r"_0000$")
_WORD = re.compile(r"[^\W_]+")

Role = Literal["image", "label", ""]


@dataclass(frozen=True)
class Named:
    """A file, taken apart: its role and the key that its partner shares; ``bare`` is the key without any role word."""

    path: Path
    role: Role
    folder: tuple[str, ...]
    key: str
    bare: str


@dataclass(frozen=True)
class Pairs:
    """What was found: (case name, image, labels), and the files that have no partner."""

    pairs: tuple[tuple[str, Path, Path], ...]
    alone: tuple[Path, ...]


def volume_files(folder: Path) -> list[Path]:
    """Every volume below a folder; hidden ones, test sets (``imagesTs``) and hilum's own are left out; sorted."""
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name.lower() not in TEST_FOLDERS and not _made_by_hilum(entry):
                yield from _walk(entry)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry


def _made_by_hilum(folder: Path) -> bool:
    """Whether a folder is a training run or a case of results: they may lie below the data that they came from."""
    is_run = os.path.isfile(folder / "plan.json") and os.path.isfile(folder / "recipe.toml")
    return is_run or holds_results_only(folder)


def taken_apart(path: Path, root: Path) -> Named:
    """Role and key of one file.

    >>> taken_apart(Path("d/imagesTr/liver_1_0000.nii.gz"), Path("d")).key
    'liver_1_0000'
    >>> taken_apart(Path("d/segmentation-3.nii"), Path("d")).role
    'label'
    """
    *folders, file = path.relative_to(root).parts
    stem = next((file[: -len(s)] for s in SUFFIXES if file.lower().endswith(s)), file)
    role: Role = ""
    kept = []
    for folder in folders:
        low = folder.lower()
        if low in IMAGE_FOLDERS or low in LABEL_FOLDERS:
            role = "image" if low in IMAGE_FOLDERS else "label"
        else:
            kept.append(folder)
    words = list(_WORD.finditer(stem))
    for match in words[-1:] + words[:1]:
        word = match.group().lower()
        if word in IMAGE_WORDS or word in LABEL_WORDS:
            bare = (stem[: match.start()] + stem[match.end() :]).strip("_-. ")
            named: Role = "image" if word in IMAGE_WORDS else "label"
            return Named(path, role or named, tuple(kept), stem if role else bare, bare)
    return Named(path, role, tuple(kept), stem, stem)


def pair(root: Path, files: Iterable[Path]) -> Pairs:
    """Pair the files below ``root``.

    Four rules, each for what the one before left over: equal folders and keys; the image's key ends in nnU-Net's
    ``_0000``; equal after role words are taken off (images/volume-3, labels/segmentation-3); one image and one label
    map alone in a folder.
    """
    named = [taken_apart(path, root) for path in files]
    labels = [item for item in named if item.role == "label"]
    images = [item for item in named if item.role != "label"]
    found: list[tuple[str, Path, Path]] = []

    def match(kind: str, label_kind: str, channel: bool = False) -> None:
        """Take the pairs whose keys agree and are unique on both sides."""
        image_key, label_key = keys(images, kind), keys(labels, label_kind)
        by_key: dict[tuple[object, ...], tuple[list[Named], list[Named]]] = {}
        for i, item in enumerate(images):
            by_key.setdefault(image_key[i], ([], []))[0].append(item)
        for i, item in enumerate(labels):
            by_key.setdefault(label_key[i], ([], []))[1].append(item)
        for left, right in by_key.values():
            if len(left) == len(right) == 1:
                found.append((_name(left[0], channel), left[0].path, right[0].path))
                images.remove(left[0])
                labels.remove(right[0])

    def keys(items: list[Named], kind: str) -> dict[int, tuple[object, ...]]:
        if kind == "key":
            return {i: (x.folder, x.key.lower()) for i, x in enumerate(items)}
        if kind == "channel":
            return {i: (x.folder, _CHANNEL.sub("", x.key).lower()) for i, x in enumerate(items)}
        if kind == "bare":
            return {i: (x.folder, x.bare.lower()) for i, x in enumerate(items)}
        return {i: (x.path.parent,) for i, x in enumerate(items)}

    match("key", "key")
    match("channel", "key", channel=True)
    match("bare", "bare")
    match("parent", "parent")
    return Pairs(tuple(sorted(found)), tuple(sorted(item.path for item in (*images, *labels))))


def _name(image: Named, channel: bool) -> str:
    """The key if it says something; the image's own name, or its folder's if that is only a role, otherwise."""
    key = _CHANNEL.sub("", image.key) if channel else image.key
    if any(c.isalpha() for c in key):
        return key
    return case_name(image.path) if image.bare else image.path.absolute().parent.name
