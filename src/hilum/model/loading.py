"""A model folder to a ``Model``: every file, checksum, label and tensor is checked.

Comes in: a folder, or the name of a model that ships with hilum. Goes out: a ``Model``, or one ModelError.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hilum.config import InferenceOptions
from hilum.errors import HilumError, InputError, ModelError, UsageError
from hilum.files import read_json, whole_folder
from hilum.labels import LabelScheme, scheme_from
from hilum.model.spec import Exported, Model, NetworkSpec
from hilum.model.tensors import StoredTensors, check_file, damaged, fit
from hilum.prepare.plan import Plan

FORMAT = 1
ENGINES = ("onnx", "openvino")
BUILT_IN = Path(__file__).parent.parent / "models"
_PARTS = ("network", "plan", "scheme", "inference", "postprocess", "card", "weights")


def load_model(path_or_name: str | Path) -> Model:
    """A model from its folder or its name, everything checked.

    Raises:
        UsageError: neither a folder nor a name that is known (the known ones are listed).
        ModelError: a file is missing or damaged, the format is another one, or the weights do not fit the network.
    """
    folder = find(path_or_name)
    table = _read_table(folder)
    try:
        spec = NetworkSpec(**table["network"])
        plan, scheme = Plan.from_json(table["plan"]), scheme_from(table["scheme"])
        said = dict(table["inference"])
        inference = InferenceOptions(**said | {"mirror_axes": tuple(said.get("mirror_axes", ()))})
        steps = tuple(dict(step) for step in table["postprocess"])
        listed = [(str(item["file"]), str(item["sha256"])) for item in table["weights"]]
    except (KeyError, TypeError, ValueError, AssertionError, HilumError) as error:
        raise damaged(folder / "model.json", f"holds values that cannot be used ({error})") from error
    exported = _exported(folder, table["engine"]) if "engine" in table else None
    _check_head(spec, scheme, folder / "model.json")
    weights = tuple(_load_weights(folder, name, checksum, spec) for name, checksum in listed)
    if not weights and exported is None:
        raise damaged(folder / "model.json", "lists no weights")
    first = load_model(folder / "first") if "first" in table else None
    _check_channels(spec, plan.channels, first, table.get("first"), folder)
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
        exported,
    )


def built_in_models() -> dict[str, str]:
    """Models that ship with hilum: name and what its card says it is."""
    found = {}
    for file in sorted(BUILT_IN.glob("*/model.json")):
        card = _read_table(file.parent).get("card", {})
        found[file.parent.name] = str(card.get("description", ""))
    return found


def find(path_or_name: str | Path) -> Path:
    """The folder of a model, of the run that made it, or of a name that ships with hilum.

    Raises:
        UsageError: there is no such thing.
        ModelError: the folder holds no model.
    """
    folder = whole_folder(path_or_name)
    if (folder / "model.json").is_file():
        return folder
    if (folder / "model" / "model.json").is_file():  # the folder of a run
        return folder / "model"
    name = str(path_or_name)
    built_in = BUILT_IN / name
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
        raise damaged(file, error.found) from None
    if not isinstance(table, dict) or "format" not in table:
        raise damaged(file, "is no description of a model")
    if table["format"] != FORMAT:
        raise ModelError(
            f"has format {table['format']!r}", where=file, wanted=f"format {FORMAT}", fix="take the hilum that wrote it"
        )
    missing = [key for key in _PARTS if key not in table]
    if missing:
        raise damaged(file, f"lacks {missing}")
    return table


def _load_weights(folder: Path, name: str, checksum: str, spec: NetworkSpec) -> StoredTensors:
    file = _inside(folder, name)
    check_file(file, checksum)
    stored = StoredTensors(file)
    fit(spec.bare().state_dict(), stored.bare(), file)
    return stored


def _exported(folder: Path, table: dict[str, Any]) -> Exported:
    """The networks of an exported model; nothing of them is opened here but to compare checksums."""
    file = folder / "model.json"
    try:
        name, precision, int8 = str(table["name"]), str(table["precision"]), bool(table["int8"])
        kept, source = int(table["activation_bytes"]), {str(key): str(text) for key, text in table["source"].items()}
        listed = [[(str(item["file"]), str(item["sha256"])) for item in fold] for fold in table["networks"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(file, f"describes no engine ({error!r})") from error
    if name not in ENGINES:
        wanted = f"one of {list(ENGINES)}"
        raise ModelError(f"is for engine {name!r}", where=file, wanted=wanted, fix="take the hilum that wrote it")
    if not listed or not all(listed):
        raise damaged(file, "lists no networks")
    for part, checksum in (item for fold in listed for item in fold):
        check_file(_inside(folder, part), checksum)
    networks = tuple(tuple(folder / part for part, _ in fold) for fold in listed)
    return Exported(name, precision, int8, kept, networks, source)


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder; never one elsewhere."""
    if Path(name).name != name:
        raise damaged(folder / "model.json", f"names weights outside the folder ({name!r})")
    return folder / name


def _check_head(spec: NetworkSpec, scheme: LabelScheme, file: Path) -> None:
    """Raise ModelError unless the network answers with what the label scheme has: classes, or regions."""
    counts = {"labels": scheme.class_count, "regions": len(scheme.regions)}
    if spec.head not in counts:
        raise damaged(file, f"has a network head {spec.head!r}, which is none of {sorted(counts)}")
    if spec.out_channels != counts[spec.head]:
        what = f"{counts[spec.head]} {'classes' if spec.head == 'labels' else 'regions'}"
        raise damaged(file, f"has {spec.out_channels} network outputs where scheme {scheme.name!r} has {what}")
    if spec.head == "regions":
        try:
            scheme.writers()
        except HilumError as error:
            raise damaged(file, error.found) from None


def _check_channels(spec: NetworkSpec, slices: int, first: Model | None, wanted_hash: str | None, folder: Path) -> None:
    """Raise ModelError unless a cascade has the model before it, with as many labels as it takes channels for."""
    if first is not None and first.hash != wanted_hash:
        raise damaged(folder / "first", "is another model than the one that this cascade was made with")
    channels = slices if first is None else slices - 1 + first.scheme.class_count
    if spec.in_channels != channels:
        raise damaged(folder / "model.json", f"wants {spec.in_channels} image channels where there are {channels}")
