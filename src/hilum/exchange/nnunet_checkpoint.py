"""nnU-Net v2's checkpoints, read without running anything that they may hold.

Comes in: ``checkpoint_final.pth`` or ``checkpoint_best.pth``. Goes out: the network's weights and the few words beside
them that inference needs. A checkpoint is a pickle, and a pickle can run any program; PyTorch's restricted reader knows
tensors and plain containers only. nnU-Net's log adds NumPy's numbers: exactly these are let in, by both names that
NumPy has given to their module. Anything else is refused by its name.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.errors import ModelError
from hilum.networks import canonical_keys

# the dtypes that NumPy's pickled numbers name; their classes have no other use than to describe bytes
_DTYPES = tuple(
    type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)
_SCALAR: Any = np.float64(0).__reduce__()[0]  # numpy's own "scalar", wherever this version keeps it
_KNOWN: list[Any] = [
    np.dtype,
    *_DTYPES,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint tells.

    Attributes:
        weights: by the names that hilum's networks use.
        duplicates: how many tensors nnU-Net stores under a second name; they were compared and left aside.
        configuration: "3d_fullres" and the like.
        trainer: the trainer's class.
        mirror_axes: axes of the patch along which nnU-Net mirrors, counted from 0; empty if it does not.
        epoch: after how many it was written.
    """

    weights: dict[str, torch.Tensor]
    duplicates: int
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]
    epoch: int


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2.

    Raises:
        ModelError: missing, damaged, holding anything but numbers and tensors, or no checkpoint of nnU-Net v2.
    """
    if not file.is_file():
        raise ModelError("is missing", where=file, wanted="a checkpoint of nnU-Net v2")
    try:
        with torch.serialization.safe_globals(_KNOWN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol of pickles that are refused in the end
            table: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"holds more than numbers and tensors ({_reason(error)}), which could run any program",
            where=file,
            wanted="a checkpoint as nnU-Net v2 writes it",
            fix="don't load it anywhere unless you trust who made it",
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"cannot be read ({str(error).splitlines()[0]})", where=file, fix="copy it again") from None
    return _taken(table, file)


def _taken(table: Any, file: Path) -> Checkpoint:
    try:
        stored = {str(key): value for key, value in table["network_weights"].items()}
        configuration = str(table["init_args"]["configuration"])
        trainer = str(table["trainer_name"])
        axes = tuple(int(axis) for axis in table.get("inference_allowed_mirroring_axes") or ())
        epoch = int(table.get("current_epoch", 0))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"is no checkpoint of nnU-Net v2 ({error!r})", where=file, wanted="network_weights, init_args, trainer_name"
        ) from None
    if not stored or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ModelError("holds weights that are no tensors", where=file, wanted="a checkpoint of nnU-Net v2")
    weights = canonical_keys(stored)
    _check_duplicates(stored, weights, file)
    return Checkpoint(weights, len(stored) - len(weights), configuration, trainer, axes, epoch)


def _check_duplicates(stored: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raise unless every tensor that was left aside equals the one that was kept under its first name."""
    by_content = {(tuple(x.shape), float(x.double().sum()), float(x.double().abs().sum())) for x in kept.values()}
    for key, x in canonical_rest(stored, kept).items():
        if (tuple(x.shape), float(x.double().sum()), float(x.double().abs().sum())) not in by_content:
            raise ModelError(
                f"stores {key} with other numbers than its first name has", where=file, fix="take another checkpoint"
            )


def canonical_rest(stored: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that ``canonical_keys`` left aside, by their own names."""
    bare = {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in stored.items()}
    return {key: value for key, value in bare.items() if key not in kept}


def _reason(error: Exception) -> str:
    """The name that PyTorch's reader did not let through, or the end of what it says."""
    words = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", words)
    return named.group(1).rstrip(".") if named else words.rpartition("error: ")[2][:80]
