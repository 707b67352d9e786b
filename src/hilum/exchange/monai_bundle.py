"""A MONAI bundle to a hilum model folder.

Comes in: a bundle's folder with ``configs/metadata.json``, ``configs/inference.json`` (or ``.yaml``, where PyYAML is
installed) and ``models/model.pt``. Goes out: a model folder. Taken are networks of kind SegResNet, SegResNetDS and
DynUNet, and the usual way of preparing CT: axes, spacing, intensities, sliding window. Expressions in a bundle
(``$...``) are Python and are never run; TorchScript and other pickles are not loaded; what is in the way is named.

What differs from MONAI in the end: the prepared grid keeps the scan's outer edges, windows are spread evenly, and
logits are brought back to the scan's grid where MONAI brings back what its post-processing left of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from hilum.config import InferenceOptions
from hilum.errors import HilumError, InputError, ModelError
from hilum.exchange.monai_networks import KINDS, check_patch
from hilum.exchange.nnunet import Imported
from hilum.files import read_json
from hilum.labels import LabelScheme, scheme_from
from hilum.model import NetworkSpec, save_model
from hilum.prepare.conventions import Conventions
from hilum.prepare.normalisation import Normalisation
from hilum.prepare.plan import Plan

_EVERYTHING = 1e9
_HARMLESS = {"LoadImaged", "EnsureChannelFirstd", "AddChanneld", "EnsureTyped", "ToTensord", "CastToTyped", "ToDeviced"}
_SIMPLE = (str, int, float, bool, type(None))


def is_bundle(path: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return (path / "configs" / "metadata.json").is_file()


def import_bundle(path: str | Path, out: str | Path, *, scheme: LabelScheme | None = None) -> Imported:
    """Write a model folder from a MONAI bundle.

    Args:
        path: the bundle's folder.
        out: the model folder to write.
        scheme: what the labels mean, instead of the bundle's ``channel_def``; wanted where it predicts regions.

    Raises:
        ModelError: something is missing or damaged, or is nothing that hilum can do; it is named.
    """
    source = Path(path)
    metadata = _table(source / "configs" / "metadata.json")
    file, config = _inference(source)
    try:
        return _import(source, Path(out), metadata, config, file, scheme)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"cannot be understood ({error!r})", where=file, wanted="the usual parts of a bundle"
        ) from None


def _import(
    source: Path, out: Path, metadata: dict[str, Any], config: dict[str, Any], file: Path, scheme: LabelScheme | None
) -> Imported:
    kind, arguments = _network(config, file)
    dims = int(arguments.pop("spatial_dims", 3))
    in_channels, outputs = int(arguments.pop("in_channels", 1)), int(arguments.pop("out_channels"))
    if dims != 3 or in_channels != 1:
        raise ModelError(f"is a {dims}D network of {in_channels} channels", where=file, wanted="3D, one channel: CT")
    inferer = _found(config, "inferer", file)
    if _target(inferer) != "SlidingWindowInferer":
        raise ModelError(f"infers by {_target(inferer)!r}", where=file, wanted="SlidingWindowInferer")
    d, h, w = (int(n) for n in _value(config, inferer["roi_size"], "roi_size", file))
    mode = str(_value(config, inferer.get("mode", "constant"), "mode", file))
    overlap = float(_value(config, inferer.get("overlap", 0.25), "overlap", file))
    axes, spacing, order, normalisation, per_scan, clip_first = _preparation(config, file)
    head = _head(config, file)
    own = _scheme(metadata, head, outputs, source, scheme)
    plan = Plan(
        dims=3,
        spacing_mm=spacing,
        patch=(d, h, w),
        batch=1,
        features=(1, 1),
        kernels=((3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (2, 2, 2)),
        convs_per_stage=(1, 1),
        normalisation=normalisation,
        separate_z=False,
        median_shape=(d, h, w),
        conventions=Conventions(
            axes=axes,
            clip_first=clip_first,
            order=order,
            nearest="off",
            intensities="scan" if per_scan else "plan",
            padding="mean",
            window="gaussian" if mode == "gaussian" else "constant",
        ),
    )
    spec = NetworkSpec("hilum.exchange.monai_networks", {"kind": kind, "arguments": arguments}, 1, outputs, 3, head)
    try:
        check_patch(spec.options, plan.patch)
        state = {f"network.{key}": value.clone() for key, value in _weights(source).items()}
        facts = {
            "network": kind,
            "version": str(metadata.get("version", "")),
            "tensors": len(state),
            "labels": {label.name: label.value for label in own.labels},
            "head": head,
            "axes": axes,
            "spacing_mm": list(spacing),
            "window": [d, h, w],
            "overlap": overlap,
        }
        text = str(metadata.get("description") or metadata.get("task") or source.name)
        card = {"description": text, "from": {"toolkit": "MONAI bundle", "folder": source.name, **facts}}
        save_model(out, spec, state, plan, own, InferenceOptions(overlap=overlap), (), card)
    except HilumError as error:
        raise ModelError(error.found, where=file, wanted=error.wanted, fix=error.fix) from None
    return Imported(out, source, facts, ("windows and grids follow hilum's rules: edges may differ by a voxel",))


def _network(config: Mapping[str, Any], file: Path) -> tuple[str, dict[str, Any]]:
    table = config.get("network_def") or config.get("network")
    if not isinstance(table, Mapping):
        raise ModelError("defines no network_def", where=file, wanted=f"one of {list(KINDS)}")
    kind = _target(table)
    if kind not in KINDS:
        raise ModelError(f"wants the network {kind!r}", where=file, wanted=f"one of {list(KINDS)}")
    given = {key: _value(config, value, key, file) for key, value in table.items() if not key.startswith("_")}
    return kind, given


def _preparation(
    config: Mapping[str, Any], file: Path
) -> tuple[str, tuple[float, float, float], int, Normalisation, bool, bool]:
    """Axes, spacing, order of the spline, intensities, whether they are each scan's own, whether clipped first."""
    axes, spacing, order, clip_first, per_scan = "", (0.0, 0.0, 0.0), 1, False, False
    normalisation: Normalisation | None = None
    for name, step in _steps(config, "preprocessing", file):
        read = {key: _value(config, value, f"{name}.{key}", file) for key, value in step.items() if key != "_target_"}
        if name == "Orientationd":
            axes = str(read["axcodes"])
        elif name == "Spacingd":
            a, b, c = (float(mm) for mm in read["pixdim"])
            spacing, order = (a, b, c), _order(read.get("mode", "bilinear"), file)
            clip_first = normalisation is not None
        elif name == "ScaleIntensityRanged" and normalisation is None:
            normalisation = _range(read)
        elif name == "NormalizeIntensityd" and normalisation is None and not read.get("nonzero", False):
            fixed = read.get("subtrahend") is not None and read.get("divisor") is not None
            mean, std = (float(read["subtrahend"]), float(read["divisor"])) if fixed else (0.0, 1.0)
            normalisation, per_scan = Normalisation("zscore", -_EVERYTHING, _EVERYTHING, mean, std), not fixed
        elif name not in _HARMLESS:
            raise ModelError(f"prepares scans by {name} {read}", where=file, wanted="axes, spacing and intensities")
    if not axes or not spacing[0] or normalisation is None:
        raise ModelError(
            f"prepares scans with axes {axes!r}, spacing {list(spacing)} and {normalisation or 'no intensities'}",
            where=file,
            wanted="Orientationd, Spacingd, and ScaleIntensityRanged or NormalizeIntensityd",
        )
    return axes, spacing, order, normalisation, per_scan, clip_first


def _range(read: Mapping[str, Any]) -> Normalisation:
    """``(hu - a_min) / (a_max - a_min) * (b_max - b_min) + b_min`` as a mean and a deviation."""
    low, high = float(read["a_min"]), float(read["a_max"])
    bottom = 0.0 if read.get("b_min") is None else float(read["b_min"])
    top = 1.0 if read.get("b_max") is None else float(read["b_max"])
    std = (high - low) / (top - bottom)
    limits = (low, high) if read.get("clip", False) else (-_EVERYTHING, _EVERYTHING)
    return Normalisation("window", *limits, mean=low - bottom * std, std=std)


def _order(mode: Any, file: Path) -> int:
    first = mode[0] if isinstance(mode, list | tuple) else mode
    if first not in ("bilinear", 3, "3"):
        raise ModelError(f"resamples images by {first!r}", where=file, wanted="bilinear, or a spline of order 3")
    return 1 if first == "bilinear" else 3


def _head(config: Mapping[str, Any], file: Path) -> Literal["labels", "regions"]:
    """ "regions" where outputs go through a sigmoid."""
    for name, step in _steps(config, "postprocessing", file):
        if name == "Activationsd":
            if step.get("sigmoid") is True:
                return "regions"
            if step.get("softmax") is True:
                return "labels"
        if name == "AsDiscreted" and step.get("argmax") is True:
            return "labels"
        if name == "AsDiscreted" and step.get("threshold") is not None:
            return "regions"
    raise ModelError("does not say whether outputs are labels or regions", where=file, wanted="softmax or sigmoid")


def _scheme(
    metadata: Mapping[str, Any], head: str, outputs: int, source: Path, given: LabelScheme | None
) -> LabelScheme:
    where = source / "configs" / "metadata.json"
    if given is not None:
        return given
    if head == "regions":
        raise ModelError("predicts regions", where=where, wanted="what they mean", fix="say it with --labels SCHEME")
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = {str(name): int(value) for value, name in channels.items() if int(value) > 0}
    if sorted(names.values()) != list(range(1, outputs)):
        raise ModelError(f"names the outputs {channels}", where=where, wanted=f"0 to {outputs - 1}, each once")
    return scheme_from({"name": source.name, "values": names})


def _steps(config: Mapping[str, Any], part: str, file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = _found(config, part, file)
    transforms = _follow(config, table.get("transforms", []), file)
    for step in transforms:
        step = _follow(config, step, file)
        if step.get("_disabled_") is True:
            continue
        yield _target(step), {key: value for key, value in step.items() if not key.startswith("_") or key == "_target_"}


def _found(config: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    table = _follow(config, config.get(key), file)
    if not isinstance(table, Mapping):
        raise ModelError(f"has no {key!r}", where=file, wanted="a table")
    return table


def _target(table: Mapping[str, Any]) -> str:
    return str(table.get("_target_", "")).rpartition(".")[2]


def _follow(config: Mapping[str, Any], value: Any, file: Path) -> Any:
    """What ``@part::name`` refers to."""
    for _ in range(10):
        if not (isinstance(value, str) and value.startswith("@")):
            return value
        here: Any = config
        for name in value[1:].replace("#", "::").split("::"):
            here = here[int(name)] if isinstance(here, list) else here[name]
        value = here
    raise ModelError(f"refers in a circle ({value!r})", where=file)


def _value(config: Mapping[str, Any], value: Any, key: str, file: Path) -> Any:
    """A plain value; expressions are refused."""
    value = _follow(config, value, file)
    if isinstance(value, str) and value.startswith("$"):
        raise ModelError(f"gives {key} by an expression ({value!r}), which is never run", where=file, wanted="a number")
    if isinstance(value, list):
        return [_value(config, item, key, file) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _value(config, item, key, file) for name, item in value.items()}
    assert isinstance(value, _SIMPLE), (key, value)
    return value


def _weights(source: Path) -> dict[str, torch.Tensor]:
    file = source / "models" / "model.pt"
    if not file.is_file():
        others = sorted(path.name for path in (source / "models").glob("*"))
        raise ModelError("is missing", where=file, wanted=f"a state dict; TorchScript is not run (there: {others})")
    try:
        table: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"is no plain state dict ({str(error).splitlines()[0][:80]})", where=file) from None
    for key in ("state_dict", "model", "network"):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            table = table[key]
    if not isinstance(table, dict) or not all(isinstance(value, torch.Tensor) for value in table.values()):
        raise ModelError("is no plain state dict", where=file, wanted="tensors by name")
    return {str(key).removeprefix("module."): value for key, value in table.items()}


def _inference(source: Path) -> tuple[Path, dict[str, Any]]:
    file = source / "configs" / "inference.json"
    if file.is_file():
        return file, _table(file)
    for other in (file.with_suffix(".yaml"), file.with_suffix(".yml")):
        if other.is_file():
            try:
                yaml = import_module("yaml")
            except ImportError:
                raise ModelError("is YAML", where=other, wanted="PyYAML", fix="pip install pyyaml") from None
            table = yaml.safe_load(other.read_text(encoding="utf-8"))
            return other, dict(table)
    raise ModelError("is missing", where=file, wanted="a bundle's inference config")


def _table(file: Path) -> dict[str, Any]:
    try:
        table = read_json(file)
    except InputError as error:
        raise ModelError(error.found, where=file, fix="copy it again") from None
    return dict(table)
