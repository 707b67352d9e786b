"""A model folder, written whole or not at all and read back.

Comes in: a network's description, its weights, the plan, the labels. Goes out: the folder, equal to what was given.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hilum import networks
from hilum.config import InferenceOptions
from hilum.errors import ModelError, OutputError
from hilum.files import plain, write_json, write_text, written_folder
from hilum.labels import LabelScheme
from hilum.model.loading import FORMAT, find, load_model
from hilum.model.spec import Model, NetworkSpec
from hilum.model.tensors import State, sha256_of, weights_name, write_tensors
from hilum.prepare.plan import Plan

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def save_model(
    folder: str | Path,
    spec: NetworkSpec,
    states: State | Sequence[State],
    plan: Plan,
    scheme: LabelScheme,
    inference: InferenceOptions | None = None,
    postprocess: Sequence[Mapping[str, Any]] = (),
    card: Mapping[str, Any] | None = None,
    recipe_toml: str = "",
    dtype: str = "float32",
    first: str | Path | None = None,
    locator: str | Path | None = None,
) -> Path:
    """Write a model folder whole or not at all, and read it back.

    Args:
        folder: its name; a model that is there already is replaced as a whole.
        spec: the network.
        states: one state dict, or one for each fold whose outputs are averaged.
        plan: what the data decided.
        scheme: what the classes mean.
        inference: overlap and mirroring.
        postprocess: steps as in a recipe.
        card: facts for people, JSON types.
        recipe_toml: the recipe's text.
        first: of a cascade: the folder of the model before this one; it is copied.
        locator: the folder of a small model that finds organs first; it is copied.
        dtype: "float32", or "float16" for files half as large (rounded to 11 bits; the network still runs in fp32).

    Raises:
        OutputError: the folder is something else than a model, cannot be written, or differs when read back.
        ModelError: the weights do not fit the network, or are not finite.
    """
    assert dtype in _DTYPES, dtype
    folder = Path(folder)
    refuse_other(folder)
    folds = [states] if isinstance(states, Mapping) else list(states)
    for state in folds:
        bad = [key for key, x in state.items() if x.is_floating_point() and not bool(x.isfinite().all())]
        if bad:
            raise ModelError(f"the weights hold NaN or infinity, such as {bad[0]}", where=folder, fix="train again")
    stored = [{key: _stored(value, dtype) for key, value in networks.canonical_keys(state).items()} for state in folds]
    with written_folder(folder) as part:
        listed = []
        for fold, tensors in enumerate(stored):
            file = part / weights_name(fold, len(stored))
            listed.append({"file": file.name, "dtype": dtype, "sha256": write_tensors(file, tensors)})
        table = {
            "format": FORMAT,
            "network": asdict(spec),
            "plan": plan.to_json(),
            "scheme": scheme.to_json(),
            "inference": asdict(inference or InferenceOptions()),
            "postprocess": [dict(step) for step in postprocess],
            "card": dict(card or {}),
            "weights": listed,
        }
        if first is not None:
            table["first"] = load_model(first).hash
        if locator is not None:
            table["locator"] = load_model(locator).hash
        write_json(part / "model.json", plain(table))
        write_text(part / "recipe.toml", recipe_toml)
        if first is not None:
            shutil.copytree(find(first), part / "first")
        if locator is not None:
            shutil.copytree(find(locator), part / "locator")
        _compare(load_model(part), stored, folder)
    return folder


def save_exported(
    part: Path,
    model: Model,
    engine: Mapping[str, Any],
    networks: Sequence[Sequence[Path]],
    card: Mapping[str, Any] | None = None,
) -> None:
    """The rest of a model folder in which exported networks lie: everything but the weights, as the model says it.

    Args:
        part: the folder; of a cascade or a locator ``first`` and ``locator`` lie in it already, exported too.
        model: the model that was exported.
        engine: ``name``, ``precision``, ``int8``, ``activation_bytes`` (see ``Exported``).
        networks: the files of each fold.
        card: facts for people, beside the model's own.
    """
    listed = [[{"file": file.name, "sha256": sha256_of(file)} for file in fold] for fold in networks]
    table = {
        "format": FORMAT,
        "network": asdict(model.spec),
        "plan": model.plan.to_json(),
        "scheme": model.scheme.to_json(),
        "inference": asdict(model.inference),
        "postprocess": [dict(step) for step in model.postprocess],
        "card": {**model.card, **(card or {})},
        "weights": [],
        "engine": {**engine, "source": {"name": model.name, "hash": model.hash}, "networks": listed},
    }
    table |= {name: load_model(part / name).hash for name in ("first", "locator") if (part / name).is_dir()}
    write_json(part / "model.json", plain(table))
    write_text(part / "recipe.toml", model.recipe_toml)


def refuse_other(folder: Path) -> None:
    """Raise OutputError where something else than a model would be replaced."""
    if folder.exists() and not (folder / "model.json").is_file():
        raise OutputError("exists and is no model folder", where=folder, fix="choose another name, or remove it")


def _compare(read: Model, stored: Sequence[State], folder: Path) -> None:
    """Raise OutputError unless what was read back is what was written, bit for bit."""
    for back, tensors in zip(read.weights, stored, strict=True):
        if not all(
            torch.equal(back[key], value.float()) for key, value in tensors.items() if value.is_floating_point()
        ):
            raise OutputError("the weights differ when read back", where=folder, fix="check the disk")


def _stored(value: torch.Tensor, dtype: str) -> torch.Tensor:
    value = value.detach().cpu()
    return value.to(_DTYPES[dtype]) if value.is_floating_point() else value
