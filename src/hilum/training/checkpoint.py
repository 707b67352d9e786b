"""A RUN THAT CAN GO ON: everything the loop needs, on disk, whole at any moment.

    RUN/checkpoint/tensors.safetensors   model/..., optimizer/<parameter>/..., ema/...
    RUN/checkpoint/state.json            format, step, seconds, random states, the recipe, the tensors' checksum

Comes in: network, optimiser, averaged weights and JSON facts. Goes out: the same after any interruption. The folder
is written beside and renamed, the old one set aside until the new one stands, so that ``kill -9``, a power cut or a
full disk leave one of the two. No pickle: nothing in it can run. Knows nothing of losses and data.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hilum.errors import InputError, ModelError, TrainingError
from hilum.files import plain, read_json, whole_folder, write_json, written_folder
from hilum.model import read_tensors, write_tensors
from hilum.training.optim import AveragedWeights

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was read back.

    Attributes:
        tensors: by their names in the file.
        facts: JSON facts as given to ``save_checkpoint``.
        folder: where it lies.
    """

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]
    folder: Path

    def group(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors under one heading, without it."""
        return {key.removeprefix(f"{name}/"): x for key, x in self.tensors.items() if key.startswith(f"{name}/")}


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: AveragedWeights | None,
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint; the one before it stays until this one is complete.

    Raises:
        OutputError: it cannot be written (disk full); the one before it is kept.
    """
    tensors = {f"model/{key}": value for key, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": x for key, x in state.items() if isinstance(x, torch.Tensor)}
    if ema is not None:
        tensors |= {f"ema/{key}": value for key, value in ema.tensors.items()}
    with written_folder(folder) as part:
        checksum = write_tensors(part / "tensors.safetensors", tensors)
        table = {
            "format": FORMAT,
            **facts,
            "ema_updates": ema.updates if ema is not None else None,
            "random": _random_states(),
            "sha256": checksum,
        }
        write_json(part / "state.json", plain(table))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The last complete checkpoint, or None if there is none.

    Raises:
        TrainingError: there is one, but damaged or of another format.
    """
    there = whole_folder(folder)
    if not there.is_dir():
        return None
    facts = checkpoint_facts(folder)
    assert facts is not None
    try:
        tensors = read_tensors(there / "tensors.safetensors", str(facts.get("sha256")))
    except ModelError as error:
        raise _unusable(there / "tensors.safetensors", error.found) from None
    return Checkpoint(tensors, facts, there)


def checkpoint_facts(folder: Path) -> dict[str, Any] | None:
    """The facts alone, which are quick to read, or None if there is no checkpoint."""
    there = whole_folder(folder)
    if not there.is_dir():
        return None
    try:
        facts = read_json(there / "state.json")
    except InputError as error:
        raise _unusable(there / "state.json", error.found) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise _unusable(there / "state.json", f"has format {found!r}, not {FORMAT}")
    return facts


def restore(
    checkpoint: Checkpoint, network: nn.Module, optimizer: torch.optim.Optimizer, ema: AveragedWeights | None
) -> None:
    """Put everything back where ``save_checkpoint`` took it from, random states included.

    Raises:
        TrainingError: the tensors are those of another network.
    """
    try:
        network.load_state_dict(checkpoint.group("model"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in checkpoint.group("optimizer").items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if ema is not None:
            ema.load(checkpoint.group("ema"), int(checkpoint.facts["ema_updates"]))
    except (RuntimeError, KeyError, ValueError) as error:
        raise _unusable(checkpoint.folder, f"does not fit this run ({str(error).splitlines()[0]})") from error
    _set_random_states(checkpoint.facts["random"])


def remove_checkpoint(folder: Path) -> None:
    """Forget it, also one that was set aside."""
    while (there := whole_folder(folder)).is_dir():
        shutil.rmtree(there)


def _random_states() -> dict[str, Any]:
    states = {"torch": torch.get_rng_state().numpy().tobytes().hex()}
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {**states, "cuda": [state.numpy().tobytes().hex() for state in cuda]}


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(_tensor(states["torch"]))
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(state) for state in states["cuda"]])


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _unusable(where: Path, found: str) -> TrainingError:
    return TrainingError(found, where=where, fix="start again with --restart, or choose another --out folder")
