"""A model folder: weights and everything that is needed to use them, without any training code.

    MODEL/model.json            format, network, plan, labels, inference, post-processing, card, checksums
    MODEL/weights.safetensors   (weights_0.safetensors, weights_1.safetensors, ... where folds are averaged)
    MODEL/recipe.toml           what a person chose when it was trained
    MODEL/locator               a small model of its own that finds organs at low resolution
    MODEL/first                 a model folder of its own, whose labels a cascade is given as more channels

Comes in: a folder, or the name of a model that ships with hilum. Goes out: a ``Model``, checked: format number,
checksums, labels, and that every tensor fits the network. Where training and inference meet; knows neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hilum import networks
from hilum.config import InferenceOptions
from hilum.errors import HilumError, InputError, ModelError, OutputError, UsageError
from hilum.files import plain, read_json, whole_folder, write_json, write_text, written_folder
from hilum.labels import LabelScheme, scheme_from
from hilum.prepare.plan import Plan

FORMAT = 1
State = Mapping[str, torch.Tensor]
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_PARTS = ("network", "plan", "scheme", "inference", "postprocess", "card", "weights")


@dataclass(frozen=True)
class NetworkSpec:
    """What ``networks.build`` needs to build the network again.

    Attributes:
        name: file name in ``hilum/networks``, or a dotted name.
        options: planned and chosen options, merged.
        in_channels: image channels; of a cascade one more for each label of the model before.
        out_channels: classes, background included; regions where the head is "regions".
        dims: 2 or 3.
        head: "labels" (softmax: one class a voxel), or "regions" (sigmoid: each region of the scheme by itself).
    """

    name: str
    options: dict[str, Any]
    in_channels: int
    out_channels: int
    dims: int
    head: Literal["labels", "regions"] = "labels"

    def build(self) -> nn.Module:
        """A fresh network."""
        return networks.build(self.name, self.options, self.in_channels, self.out_channels, self.dims)


@dataclass(frozen=True, eq=False)
class Model:
    """A model folder, read and checked.

    Attributes:
        folder: where it lies.
        spec: the network.
        plan: what the data decided (spacing, patch, normalisation).
        scheme: what the classes mean.
        inference: overlap and mirroring.
        postprocess: steps as in a recipe, in order.
        card: facts for people: what it was trained on, scores, warnings.
        weights: one state dict in fp32 for each fold.
        recipe_toml: the recipe it was trained with, or "".
        hash: 12 hexadecimal digits that change with any weight or setting.
        first: of a cascade: the model before this one.
    """

    folder: Path
    spec: NetworkSpec
    plan: Plan
    scheme: LabelScheme
    inference: InferenceOptions
    postprocess: tuple[dict[str, Any], ...]
    card: dict[str, Any]
    weights: tuple[dict[str, torch.Tensor], ...]
    recipe_toml: str
    hash: str
    first: Model | None = None

    @property
    def name(self) -> str:
        """The folder's name; the run's where the folder is the ``model`` of a run."""
        return self.folder.resolve().parent.name if self.folder.name == "model" else self.folder.name

    def network(self, fold: int = 0, device: str | torch.device = "cpu") -> nn.Module:
        """The network of a fold with its weights, ready to predict (eval mode, no gradients)."""
        network = self.spec.build()
        _fill(network, self.weights[fold], self.folder / _weights_name(fold, len(self.weights)))
        return network.to(device).eval().requires_grad_(False)

    def facts(self) -> dict[str, Any]:
        """Everything but the weights, as plain JSON types, for people and programs."""
        return plain(  # type: ignore[no-any-return]
            {
                "name": self.name,
                "hash": self.hash,
                "folder": str(self.folder),
                "card": self.card,
                "network": asdict(self.spec),
                "parameters": sum(tensor.numel() for tensor in self.weights[0].values()),
                "folds": len(self.weights),
                "plan": self.plan.to_json(),
                "scheme": self.scheme.to_json(),
                "inference": asdict(self.inference),
                "postprocess": list(self.postprocess),
            }
        )


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
    if folder.exists() and not (folder / "model.json").is_file():
        raise OutputError("exists and is no model folder", where=folder, fix="choose another name, or remove it")
    folds = [states] if isinstance(states, Mapping) else list(states)
    for state in folds:
        bad = [key for key, x in state.items() if x.is_floating_point() and not bool(x.isfinite().all())]
        if bad:
            raise ModelError(f"the weights hold NaN or infinity, such as {bad[0]}", where=folder, fix="train again")
    stored = [{key: _stored(value, dtype) for key, value in networks.canonical_keys(state).items()} for state in folds]
    with written_folder(folder) as part:
        listed = []
        for fold, tensors in enumerate(stored):
            file = part / _weights_name(fold, len(stored))
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
            shutil.copytree(_find(first), part / "first")
        if locator is not None:
            shutil.copytree(_find(locator), part / "locator")
        _compare(load_model(part), stored, folder)
    return folder


def load_model(path_or_name: str | Path) -> Model:
    """A model from its folder or its name, everything checked.

    Raises:
        UsageError: neither a folder nor a name that is known (the known ones are listed).
        ModelError: a file is missing or damaged, the format is another one, or the weights do not fit the network.
    """
    folder = _find(path_or_name)
    table = _read_table(folder)
    try:
        spec = NetworkSpec(**table["network"])
        plan, scheme = Plan.from_json(table["plan"]), scheme_from(table["scheme"])
        said = dict(table["inference"])
        inference = InferenceOptions(**said | {"mirror_axes": tuple(said.get("mirror_axes", ()))})
        steps = tuple(dict(step) for step in table["postprocess"])
        listed = [(str(item["file"]), str(item["sha256"])) for item in table["weights"]]
    except (KeyError, TypeError, ValueError, AssertionError, HilumError) as error:
        raise _damaged(folder / "model.json", f"holds values that cannot be used ({error})") from error
    _check_head(spec, scheme, folder / "model.json")
    weights = tuple(_load_weights(folder, name, checksum, spec) for name, checksum in listed)
    if not weights:
        raise _damaged(folder / "model.json", "lists no weights")
    first = load_model(folder / "first") if "first" in table else None
    _check_channels(spec, first, table.get("first"), folder)
    recipe = folder / "recipe.toml"
    return Model(
        folder,
        spec,
        plan,
        scheme,
        inference,
        steps,
        dict(table["card"]),
        weights,
        recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12],
        first,
    )


def built_in_models() -> dict[str, str]:
    """Models that ship with hilum: name and what its card says it is."""
    folder = Path(__file__).parent / "models"
    found = {}
    for file in sorted(folder.glob("*/model.json")):
        card = _read_table(file.parent).get("card", {})
        found[file.parent.name] = str(card.get("description", ""))
    return found


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
    return _sha256(file)


def read_tensors(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    """A safetensors file whose bytes are those that were written.

    Raises:
        ModelError: missing, or damaged.
    """
    if not file.is_file():
        raise _damaged(file, "is missing")
    try:
        if _sha256(file) != sha256:
            raise _damaged(file, "is damaged: its checksum is not the one that was written down")
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, f"cannot be read ({error})") from None


def _load_weights(folder: Path, name: str, checksum: str, spec: NetworkSpec) -> dict[str, torch.Tensor]:
    if Path(name).name != name:
        raise _damaged(folder / "model.json", f"names weights outside the folder ({name!r})")
    tensors = read_tensors(folder / name, checksum)
    full = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    with torch.device("meta"):  # shapes alone: no memory, no initialisation
        shapes = spec.build().state_dict()
    _fit(shapes, full, folder / name)
    return full


def _check_head(spec: NetworkSpec, scheme: LabelScheme, file: Path) -> None:
    """Raise ModelError unless the network answers with what the label scheme has: classes, or regions."""
    counts = {"labels": scheme.class_count, "regions": len(scheme.regions)}
    if spec.head not in counts:
        raise _damaged(file, f"has a network head {spec.head!r}, which is none of {sorted(counts)}")
    if spec.out_channels != counts[spec.head]:
        what = f"{counts[spec.head]} {'classes' if spec.head == 'labels' else 'regions'}"
        raise _damaged(file, f"has {spec.out_channels} network outputs where scheme {scheme.name!r} has {what}")
    if spec.head == "regions":
        try:
            scheme.writers()
        except HilumError as error:
            raise _damaged(file, error.found) from None


def _check_channels(spec: NetworkSpec, first: Model | None, wanted_hash: str | None, folder: Path) -> None:
    """Raise ModelError unless a cascade has the model before it, with as many labels as it takes channels for."""
    if first is not None and first.hash != wanted_hash:
        raise _damaged(folder / "first", "is another model than the one that this cascade was made with")
    channels = 1 if first is None else first.scheme.class_count
    if spec.in_channels != channels:
        raise _damaged(folder / "model.json", f"wants {spec.in_channels} image channels where there are {channels}")


def _fill(network: nn.Module, state: State, file: Path) -> None:
    _fit(network.state_dict(), state, file)
    network.load_state_dict(state)


def _fit(wanted: State, found: State, file: Path) -> None:
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


def _find(path_or_name: str | Path) -> Path:
    folder = whole_folder(path_or_name)
    if (folder / "model.json").is_file():
        return folder
    if (folder / "model" / "model.json").is_file():  # the folder of a run
        return folder / "model"
    name = str(path_or_name)
    built_in = Path(__file__).parent / "models" / name
    if name == Path(name).name and (built_in / "model.json").is_file():
        return built_in
    if folder.is_dir():
        raise ModelError("no model.json in this folder", where=folder, wanted="a model folder, such as RUN/model")
    raise UsageError(
        f"no model {name!r}",
        wanted=f"a model folder, or one of {sorted(built_in_models()) or 'none that ship with hilum'}",
    )


def _read_table(folder: Path) -> dict[str, Any]:
    file = folder / "model.json"
    try:
        table = read_json(file)
    except InputError as error:
        raise _damaged(file, error.found) from None
    if not isinstance(table, dict) or "format" not in table:
        raise _damaged(file, "is no description of a model")
    if table["format"] != FORMAT:
        raise ModelError(
            f"has format {table['format']!r}", where=file, wanted=f"format {FORMAT}", fix="take the hilum that wrote it"
        )
    missing = [key for key in _PARTS if key not in table]
    if missing:
        raise _damaged(file, f"lacks {missing}")
    return table


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


def _weights_name(fold: int, folds: int) -> str:
    return "weights.safetensors" if folds == 1 else f"weights_{fold}.safetensors"


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(file: Path, found: str) -> ModelError:
    return ModelError(found, where=file, fix="copy the model folder again from where it came, or train it again")
