"""Safetensors files with checksums, and whether tensors are those that a network wants.

Comes in: tensors by name, or a file. Goes out: the file and its sha256, or the tensors. No pickle is ever read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hilum.errors import ModelError

State = Mapping[str, torch.Tensor]


def write_tensors(file: Path, tensors: State) -> str:
    """Write a safetensors file and return its sha256.

    Raises:
        OSError: as any write (safetensors reports a full disk in words of its own).
    """
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, file)
    except SafetensorError as error:
        number = int(str(error).rpartition("os error ")[2].rstrip(") ") or 5) if "os error" in str(error) else 5
        raise OSError(number, str(error), str(file)) from error
    return sha256_of(file)


def read_tensors(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    """A safetensors file whose bytes are those that were written.

    Raises:
        ModelError: missing, or damaged.
    """
    check_file(file, sha256)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise damaged(file, f"cannot be read ({error})") from None


def fit(wanted: State, found: State, file: Path) -> None:
    """Check that tensors are those of a network, by name and shape.

    Raises:
        ModelError: what is missing, unknown or of another shape.
    """
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{key} is {tuple(found[key].shape)} where the network has {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and wanted[key].shape != found[key].shape
    ]
    parts = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
    parts += [f"{len(unknown)} are not the network's, such as {unknown[0]}"] if unknown else []
    if parts or shapes:
        raise ModelError(
            f"the weights do not fit the network: {'; '.join([*parts, *shapes[:1]])}",
            where=file,
            fix="take the weights and the model.json of one and the same model",
        )


def weights_name(fold: int, folds: int) -> str:
    """The file of a fold's weights."""
    return "weights.safetensors" if folds == 1 else f"weights_{fold}.safetensors"


def check_file(file: Path, sha256: str) -> None:
    """Check that a file's bytes are those that were written.

    Raises:
        ModelError: missing, or damaged.
    """
    if not file.is_file():
        raise damaged(file, "is missing")
    try:
        same = sha256_of(file) == sha256
    except OSError as error:
        raise damaged(file, f"cannot be read ({error})") from None
    if not same:
        raise damaged(file, "is damaged: its checksum is not the one that was written down")


def sha256_of(file: Path) -> str:
    """The checksum of a file's bytes, as 64 hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged(file: Path, found: str) -> ModelError:
    """The error for a part of a model folder that cannot be used."""
    return ModelError(found, where=file, fix="copy the model folder again from where it came, or train it again")
