"""Folders as nnU-Net v2 leaves them after training, made from hilum's own networks with small random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum import networks

LABELS: dict[str, Any] = {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}
REGIONS: dict[str, Any] = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}


def configuration(dims: int = 3, residual: bool = False, **more: Any) -> dict[str, Any]:
    """A configuration of plans.json: two stages of 4 and 6 channels."""
    depths = (
        {"n_blocks_per_stage": [1, 2], "n_conv_per_stage_decoder": [1]}
        if residual
        else {"n_conv_per_stage": [2, 2], "n_conv_per_stage_decoder": [2]}
    )
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 12, 16][3 - dims :],
        "median_image_size_in_voxels": [20.0, 30.0, 30.0][3 - dims :],
        "spacing": [2.0, 1.5, 1.5][3 - dims :],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 6],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [[3] * dims] * 2,
                "strides": [[1] * dims, [2] * dims],
                **depths,
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        **more,
    }


def plans(**configurations: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": [2.0, 1.5, 1.5],
        "configurations": configurations,
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 90.0, "std": 60.0, "percentile_00_5": -80.0, "percentile_99_5": 300.0}
        },
    }


def dataset(labels: dict[str, Any] | None = None, order: list[int] | None = None) -> dict[str, Any]:
    table = {"channel_names": {"0": "CT"}, "labels": labels or LABELS, "numTraining": 1, "file_ending": ".nii.gz"}
    return table | ({"regions_class_order": order} if order else {})


def network_of(config: dict[str, Any], in_channels: int, outputs: int, seed: int = 0) -> torch.nn.Module:
    """Our network of the same plan."""
    given = config["architecture"]["arch_kwargs"]
    dims = len(config["patch_size"])
    options = {
        "features": given["features_per_stage"],
        "kernels": given["kernel_sizes"],
        "strides": given["strides"],
        "decoder_convs": given["n_conv_per_stage_decoder"],
    }
    residual = "n_blocks_per_stage" in given
    key = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    options["blocks_per_stage" if residual else "convs_per_stage"] = given[key]
    torch.manual_seed(seed)
    return networks.build("residual_unet" if residual else "plain_unet", options, in_channels, outputs, dims).eval()


def nnunet_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with every second name that nnU-Net v2 stores: layers twice, the encoder in the decoder again."""
    full = {}
    for key, value in state.items():
        for name in (key, f"decoder.{key}" if key.startswith("encoder.") else key):
            full[name] = value
            for layer, place in ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")):
                if layer in name:
                    full[name.replace(layer, place)] = value
    return full


def write_checkpoint(file: Path, state: dict[str, torch.Tensor], config: str, axes: Any = (0, 1, 2)) -> None:
    """As nnUNetTrainer.save_checkpoint does, NumPy's numbers included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "network_weights": nnunet_names(state),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"train_losses": [np.float32(-0.5), np.float64(0.1)], "dice": [[np.float32(0.3)]]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 7,
            "init_args": {"configuration": config, "fold": 0, "device": torch.device("cpu"), "plans": {}},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": axes,
        },
        file,
    )


def trained(
    folder: Path,
    config: dict[str, Any],
    name: str = "3d_fullres",
    *,
    table: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    outputs: int = 4,
    in_channels: int = 1,
    folds: int = 1,
    axes: Any = (0, 1, 2),
) -> Path:
    """A trainer's folder: plans.json, dataset.json, fold_*/checkpoint_final.pth."""
    source = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
    source.mkdir(parents=True, exist_ok=True)
    (source / "plans.json").write_text(json.dumps(table or plans(**{name: config})))
    (source / "dataset.json").write_text(json.dumps(facts or dataset()))
    for fold in range(folds):
        state = network_of(config, in_channels, outputs, fold).state_dict()
        write_checkpoint(source / f"fold_{fold}" / "checkpoint_final.pth", state, name, axes)
    return source
