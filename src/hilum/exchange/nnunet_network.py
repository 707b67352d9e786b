"""nnU-Net's plans to hilum's plan and network, number by number.

Comes in: ``plans.json`` as a table and a configuration's name. Goes out: a ``Plan``, the network's name and options,
and the stage before it if it is a cascade. Whatever hilum has no words for is refused by its name. Reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum.errors import ModelError
from hilum.prepare.conventions import Conventions
from hilum.prepare.normalisation import Normalisation
from hilum.prepare.plan import Plan, Triple

_EVERYTHING = 1e9  # no intensity is clipped there
_NETWORKS = {
    "PlainConvUNet": ("plain_unet", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("residual_unet", "n_blocks_per_stage"),
}
_READERS = {"SimpleITKIO": "file", "NibabelIO": "file", "NibabelIOWithReorient": "SAR"}
_SAME = {  # keys of arch_kwargs that must have these values, or be absent
    "conv_bias": (True,),
    "norm_op_kwargs": ({"eps": 1e-05, "affine": True},),
    "dropout_op": (None,),
    "dropout_op_kwargs": (None, {}),
    "nonlin": ("torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"),
    "nonlin_kwargs": ({"inplace": True}, {"inplace": True, "negative_slope": 0.01}),
    "nonlin_first": (False,),
    "deep_supervision": (True, False),
    "bottleneck_channels": (None,),
}
_READ = {"n_stages", "features_per_stage", "conv_op", "norm_op", "kernel_sizes", "strides", "n_conv_per_stage_decoder"}


@dataclass(frozen=True)
class Planned:
    """One configuration in hilum's words.

    Attributes:
        plan: spacing, patch, normalisation, conventions.
        network: a name of ``hilum/networks``.
        options: what it takes.
        previous: the configuration whose labels this one is given too, or "".
    """

    plan: Plan
    network: str
    options: dict[str, Any]
    previous: str


def planned(plans: Mapping[str, Any], name: str, where: str, axes: str = "") -> Planned:
    """A configuration of nnU-Net's plans.

    Args:
        plans: ``plans.json``.
        name: the configuration's.
        where: the file, for messages.
        axes: in which order to list voxels instead of the reader's ("" leaves that to the plans).

    Raises:
        ModelError: something is missing, or is nothing that hilum can do; it is named.
    """
    try:
        table = _inherited(plans, name, where)
        network, options = _network(table, where)
        dims = len(table["patch_size"])
        plan = Plan(
            dims=dims,
            spacing_mm=_spacing(table, plans, dims),
            patch=_triple(table["patch_size"], 1),
            batch=int(table.get("batch_size", 2)),
            features=tuple(options["features"]),
            kernels=tuple(_triple(row, 1) for row in options["kernels"]),
            strides=tuple(_triple(row, 1) for row in options["strides"]),
            convs_per_stage=tuple(options.get("convs_per_stage", [2] * len(options["features"]))),
            normalisation=_normalisation(plans, table, where),
            separate_z=False,
            median_shape=_triple([round(n) for n in table.get("median_image_size_in_voxels", table["patch_size"])], 1),
            conventions=_conventions(plans, table, where, axes),
        )
        return Planned(plan, network, options, str(table.get("previous_stage") or ""))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"are no plans of nnU-Net v2 ({error!r})", where=where, wanted="plans.json of v2") from None


def _inherited(plans: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A configuration with all that it takes over from others."""
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    while name:
        if name in seen or name not in plans["configurations"]:
            raise ModelError(
                f"has no configuration {name!r}", where=where, wanted=f"one of {list(plans['configurations'])}"
            )
        seen.append(name)
        chain.append(dict(plans["configurations"][name]))
        name = str(chain[-1].get("inherits_from", ""))
    return {key: value for table in reversed(chain) for key, value in table.items()}


def _network(table: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Name and options of our own network."""
    if "architecture" in table:
        architecture = table["architecture"]
        full = str(architecture["network_class_name"])
        kind, given = full.rpartition(".")[2], dict(architecture["arch_kwargs"])
    elif "UNet_class_name" in table:
        full = kind = str(table["UNet_class_name"])
        given = _before_2_3(table, kind)
    else:
        raise ModelError("name no architecture", where=where, wanted="plans of nnU-Net 2.0 or later")
    if kind not in _NETWORKS or ("." in full and not full.startswith("dynamic_network_architectures.architectures.")):
        raise ModelError(f"want the network {full!r}", where=where, wanted=f"one of {sorted(_NETWORKS)}")
    name, depth_key = _NETWORKS[kind]
    _check_same({key: value for key, value in given.items() if key not in _READ and key != depth_key}, kind, where)
    dims = len(table["patch_size"])
    for key, prefix in (
        ("conv_op", "torch.nn.modules.conv.Conv"),
        ("norm_op", "torch.nn.modules.instancenorm.InstanceNorm"),
    ):
        if given[key] != f"{prefix}{dims}d":
            raise ModelError(f"want {key} = {given[key]!r} in {kind}", where=where, wanted=f"{prefix}{dims}d")
    stages = int(given["n_stages"])
    features = _listed(given["features_per_stage"], stages)
    options: dict[str, Any] = {
        "features": [int(n) for n in features],
        "kernels": [list(_triple(row, 1, dims)) for row in _listed(given["kernel_sizes"], stages)],
        "strides": [list(_triple(row, 1, dims)) for row in _listed(given["strides"], stages)],
        "decoder_convs": [int(n) for n in _listed(given["n_conv_per_stage_decoder"], stages - 1)],
    }
    depths = [int(n) for n in _listed(given[depth_key], stages)]
    options["convs_per_stage" if name == "plain_unet" else "blocks_per_stage"] = depths
    return name, options


def _check_same(given: Mapping[str, Any], kind: str, where: str) -> None:
    for key, value in given.items():
        if key not in _SAME and value is not None:
            raise ModelError(
                f"want {key} = {value!r} in {kind}", where=where, wanted="nothing that hilum does not know"
            )
        if key in _SAME and value not in _SAME[key]:
            raise ModelError(f"want {key} = {value!r} in {kind}", where=where, wanted=f"{_SAME[key][0]!r}")


def _before_2_3(table: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The architecture as plans before nnU-Net 2.3 describe it, as its ``ConfigurationManager`` translates them."""
    depths = list(table["n_conv_per_stage_encoder"])
    base, most = int(table["UNet_base_num_features"]), int(table["unet_max_num_features"])
    dims = len(table["patch_size"])
    return {
        "n_stages": len(depths),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(depths))],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "kernel_sizes": table["conv_kernel_sizes"],
        "strides": table["pool_op_kernel_sizes"],
        "n_conv_per_stage_decoder": table["n_conv_per_stage_decoder"],
        _NETWORKS.get(kind, ("", "n_conv_per_stage"))[1]: depths,
    }


def _spacing(table: Mapping[str, Any], plans: Mapping[str, Any], dims: int) -> tuple[float, float, float]:
    spacing = [float(mm) for mm in table["spacing"]]
    if dims == 2:
        spacing = [float(plans.get("original_median_spacing_after_transp", [1.0])[0]), *spacing[-2:]]
    d, h, w = spacing
    return d, h, w


def _normalisation(plans: Mapping[str, Any], table: Mapping[str, Any], where: str) -> Normalisation:
    schemes = list(table["normalization_schemes"])
    if len(schemes) != 1:
        raise ModelError(f"want {len(schemes)} image channels ({', '.join(schemes)})", where=where, wanted="one: CT")
    scheme = str(schemes[0])
    if scheme == "CTNormalization":
        by_channel = (
            plans.get("foreground_intensity_properties_per_channel")
            or plans["foreground_intensity_properties_by_modality"]
        )
        of = by_channel["0"]
        low, high = float(of["percentile_00_5"]), float(of["percentile_99_5"])
        return Normalisation("ct", low, high, float(of["mean"]), max(float(of["std"]), 1e-8))
    if scheme in ("ZScoreNormalization", "NoNormalization", "RGBTo01Normalization"):
        std = 255.0 if scheme == "RGBTo01Normalization" else 1.0
        return Normalisation("zscore", -_EVERYTHING, _EVERYTHING, 0.0, std)
    raise ModelError(
        f"want the normalisation {scheme!r}",
        where=where,
        wanted="CTNormalization, ZScoreNormalization, NoNormalization or RGBTo01Normalization",
    )


def _conventions(plans: Mapping[str, Any], table: Mapping[str, Any], where: str, axes: str) -> Conventions:
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    if reader not in _READERS:
        raise ModelError(f"read images by {reader!r}", where=where, wanted=f"one of {sorted(_READERS)}")
    if table.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise ModelError(
            f"want the preprocessor {table['preprocessor_name']!r}", where=where, wanted="DefaultPreprocessor"
        )
    order, nearest = _resampling(table, "data", where)
    if _resampling(table, "probabilities", where) != (1, nearest):
        raise ModelError(
            "resample images and probabilities by different rules", where=where, wanted="one rule for both"
        )
    masked = bool(next(iter(table.get("use_mask_for_norm", [False]))))
    scan = "scan_nonzero" if masked else "scan"
    return Conventions(
        axes=axes or _READERS[reader],
        transpose=tuple(int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))),
        clip_first=True,
        rounded=False,
        order=order,
        nearest="nnunet" if nearest else "off",
        crop="nonzero",
        intensities=scan if table["normalization_schemes"][0] == "ZScoreNormalization" else "plan",  # type: ignore[arg-type]
        padding="mean",
        window="nnunet",
    )


def _resampling(table: Mapping[str, Any], what: str, where: str) -> tuple[int, bool]:
    """Order of the spline, and whether a thick axis is resampled apart."""
    function = str(table.get(f"resampling_fn_{what}", "resample_data_or_seg_to_shape"))
    given = dict(table.get(f"resampling_fn_{what}_kwargs", {}))
    said = f"resample {what} by {function!r} with {given}"
    if function == "resample_data_or_seg_to_shape":
        order, along = int(given.get("order", 3)), int(given.get("order_z", 0))
        fits = order in (1, 3) and along == 0 and not given.get("is_seg", False)
    elif function == "resample_torch_fornnunet":
        order, fits = 1, given.get("mode", "linear") == "linear" and not given.get("is_seg", False)
    else:
        order, fits = 0, False
    if not fits or given.get("force_separate_z") is True:
        raise ModelError(said, where=where, wanted="order 3 or 1, and order 0 along thick slices")
    return order, given.get("force_separate_z") is None


def _listed(value: Any, count: int) -> list[Any]:
    made = [value] * count if isinstance(value, int) else list(value)
    if len(made) != count:
        raise ValueError(f"{value!r} for {count} stages")
    return made


def _triple(values: Any, fill: int, dims: int = 3) -> Triple:
    """(D, H, W), with ``fill`` in front of two numbers."""
    row: Sequence[int] = [values] * dims if isinstance(values, int) else [int(n) for n in values]
    d, h, w = [fill] * (3 - len(row)) + list(row)
    return d, h, w
