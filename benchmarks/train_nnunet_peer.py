"""Train small real nnU-Net v2 models with nnunetv2 itself, for ``inference_vs_nnunet.py`` to compare with.

Runs in the peer's own environment (``pip install nnunetv2 torch==2.13.0``), never in hilum's:

    hilum data phantom RAW --cases 5 --small --layout nnunet
    PEER/bin/python benchmarks/train_nnunet_peer.py RAW WORK plain resenc tiny_2d tiny_cascade tiny_regions ...

Comes in: synthetic CT in nnU-Net's layout. Goes out: ``WORK/nnUNet_results/Dataset.../nnUNetTrainer__...`` folders as
nnUNetv2_train leaves them. Fingerprint, preprocessing, augmentation, loss, deep supervision and checkpoints are
nnunetv2's; what is ours are the plans (patches that a CPU can train, at full width: 32 to 320 features) and a short
schedule (AdamW, tens of iterations, bf16 where the processor has it).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import sys
import time
from pathlib import Path

KERNEL = [3, 3, 3]
TINY = {"features": [8, 16, 32], "patch": [24, 48, 48]}
RECIPES = {
    # name: data set, configuration, plans, iterations, what the plan says
    "plain": (1, "3d_fullres", "nnUNetPlans", 60, {"batch": 1}),
    "resenc": (1, "3d_fullres", "nnUNetResEncUNetMPlans", 40, {"residual": True, "batch": 1}),
    "tiny": (1, "3d_fullres", "tinyPlans", 150, TINY),
    "tiny_2d": (1, "2d", "tinyPlans", 40, {"features": [8, 16, 32, 64], "patch": [96, 96]}),
    "tiny_lowres": (1, "3d_lowres", "tinyPlans", 150, {"features": [8, 16, 32], "patch": [24, 40, 40]}),
    "tiny_cascade": (1, "3d_cascade_fullres", "tinyPlans", 100, TINY),
    "tiny_resenc": (1, "3d_fullres", "tinyResPlans", 100, {"residual": True, **TINY}),
    "tiny_regions": (2, "3d_fullres", "tinyPlans", 200, TINY),
    "tiny_zscore": (1, "3d_fullres", "tinyZPlans", 120, {**TINY, "zscore": True}),
    "tiny_transposed": (
        1, "3d_fullres", "tinyTPlans", 120,
        {"features": [8, 16, 32], "patch": [48, 24, 48], "transpose": [1, 0, 2], "spacing": [2.8, 9.6, 2.8]},
    ),
}  # fmt: skip
LABELS = {
    1: {"labels": {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}},
    2: {
        "labels": {"background": 0, "kidney_and_mass": [1, 2, 3], "mass": [2, 3], "tumor": 2},
        "regions_class_order": [1, 3, 2],
    },
}


def write_raw(source: Path, raw: Path, number: int) -> str:
    """A data set in nnU-Net's raw folder; returns its name."""
    name = f"Dataset{number:03d}_Phantom"
    for part in ("imagesTr", "labelsTr"):
        (raw / name / part).mkdir(parents=True, exist_ok=True)
        for file in sorted((source / part).glob("*.nii.gz")):
            target = raw / name / part / file.name
            if not target.exists():
                shutil.copy(file, target)
    count = len(list((source / "labelsTr").glob("*.nii.gz")))
    facts = {"channel_names": {"0": "CT"}, "numTraining": count, "file_ending": ".nii.gz", **LABELS[number]}
    (raw / name / "dataset.json").write_text(json.dumps(facts, indent=1))
    return name


def strides_of(patch: list[int], stages: int) -> list[list[int]]:
    """Halve every axis that keeps at least 3 voxels."""
    size, strides = list(patch), [[1] * len(patch)]
    for _ in range(stages - 1):
        step = [2 if n % 2 == 0 and n // 2 >= 3 else 1 for n in size]
        size = [n // s for n, s in zip(size, step, strict=True)]
        strides.append(step)
    return strides


def architecture(features: list[int], kernels: list[list[int]], strides: list[list[int]], residual: bool) -> dict:
    """A network in the format of plans of nnU-Net 2.3 and later: plain, or residual with the depths of ResEnc M."""
    stages, dims = len(features), len(kernels[0])
    if residual:
        blocks = ([1, 3, 4] + [6] * stages)[:stages]
        depths = {"n_blocks_per_stage": blocks, "n_conv_per_stage_decoder": [1] * (stages - 1)}
    else:
        depths = {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": kernels,
            "strides": strides,
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
    }


def configuration(base: dict, dims: int, spacing: list[float], wishes: dict) -> dict:
    """One configuration of the plans."""
    patch = wishes.get("patch", [48, 96, 96])
    features = wishes.get("features", [32, 64, 128, 256, 320, 320])
    made = copy.deepcopy(base)
    made.update(batch_size=wishes.get("batch", 2), patch_size=patch, spacing=spacing)
    if wishes.get("zscore"):
        made["normalization_schemes"], made["use_mask_for_norm"] = ["ZScoreNormalization"], [False]
    kernels, strides = [KERNEL[:dims]] * len(features), strides_of(patch, len(features))
    made["architecture"] = architecture(features, kernels, strides, bool(wishes.get("residual")))
    return made


def make_plans(first: dict, name: str, wishes: dict) -> dict:
    """Plans of one name with all four configurations."""
    plans = copy.deepcopy(first)
    plans["plans_name"] = name
    fine = wishes.get("spacing", [3.2, 2.8, 2.8])
    low = [round(1.6 * s, 3) for s in fine]
    if "transpose" in wishes:
        plans["transpose_forward"] = plans["transpose_backward"] = wishes["transpose"]
    base = next(table for table in first["configurations"].values() if "normalization_schemes" in table)
    made = {}
    for key, dims, spacing in (("2d", 2, fine[1:]), ("3d_lowres", 3, low), ("3d_fullres", 3, fine)):
        patch = [96, 96] if dims == 2 else wishes.get("patch", [48, 96, 96])
        patch = patch if len(patch) == dims else [24, 48, 48]
        patch = [24, 40, 40] if key == "3d_lowres" and "features" in wishes else patch
        made[key] = configuration(base, dims, spacing, {**wishes, "patch": patch})
        made[key]["data_identifier"] = f"{name}_{key}"
        made[key]["batch_dice"] = key != "2d"
    made["3d_lowres"]["next_stage"] = "3d_cascade_fullres"
    made["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"] = made
    return plans


def train(work: Path, dataset: str, plans: dict, config: str, iterations: int) -> Path:
    """Preprocess, train a few iterations, keep the folder as nnUNetv2_train does."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Trainer

    preprocessed = work / "nnUNet_preprocessed" / dataset
    table = json.loads((work / "nnUNet_raw" / dataset / "dataset.json").read_text())
    name = plans["plans_name"]
    (preprocessed / f"{name}.json").write_text(json.dumps(plans, indent=1))
    shutil.copy(work / "nnUNet_raw" / dataset / "dataset.json", preprocessed / "dataset.json")
    source = "3d_fullres" if config == "3d_cascade_fullres" else config
    if not (preprocessed / f"{name}_{source}").is_dir():
        preprocess_dataset(int(dataset[7:10]), name, [source], [1], show_progress_bar=False)
    bf16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()

    class nnUNetTrainer(Trainer):  # noqa: N801 - nnUNetv2_predict looks the class up by this name
        def configure_optimizers(self):  # type: ignore[no-untyped-def]
            optimizer = torch.optim.AdamW(self.network.parameters(), 2e-3, weight_decay=1e-4)
            return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, self.num_epochs, 0.9)

        def train_step(self, batch):  # type: ignore[no-untyped-def]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return super().train_step(batch)

        def plot_network_architecture(self):  # type: ignore[no-untyped-def]
            pass

    trainer = nnUNetTrainer({**plans, "continue_training": False}, config, 0, table, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = 10, max(1, iterations // 10)
    trainer.num_val_iterations_per_epoch = 1
    trainer.oversample_foreground_percent = 0.7
    begin = time.perf_counter()
    trainer.run_training()
    print(json.dumps({"trained": f"{dataset} {name} {config}", "seconds": round(time.perf_counter() - begin, 1)}))
    if config == "3d_lowres":  # the cascade trains on its predictions
        trainer.perform_actual_validation(False)
        train_cases_too(trainer)
    return Path(trainer.output_folder_base)


def train_cases_too(trainer) -> None:  # type: ignore[no-untyped-def]
    """The cascade wants predictions of the training cases too: their own labels do for a test."""
    import blosc2
    import numpy as np

    folder = Path(trainer.output_folder_base) / "predicted_next_stage" / "3d_cascade_fullres"
    full = Path(trainer.preprocessed_dataset_folder_base) / f"{trainer.plans_manager.plans_name}_3d_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    for file in full.glob("*_seg.b2nd"):
        target = folder / file.name.replace("_seg.b2nd", ".b2nd")
        if not target.exists():
            labels = np.ascontiguousarray(blosc2.open(urlpath=str(file), mode="r")[:][0])
            blosc2.asarray(labels, urlpath=str(target))


def main() -> int:
    """The models that were asked for, one after the other."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("raw", type=Path, help="images and labels in nnU-Net's layout")
    words.add_argument("work", type=Path, help="where nnUNet_raw, nnUNet_preprocessed and nnUNet_results go")
    words.add_argument("models", nargs="+", choices=sorted(RECIPES))
    words.add_argument("--iterations", type=int, default=0, help="instead of each model's own number")
    options = words.parse_args()
    for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[part] = str((options.work / part).resolve())
        Path(os.environ[part]).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    os.environ.setdefault("nnUNet_compile", "0")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    for model in options.models:
        os.environ["nnUNet_n_proc_DA"] = "1"  # the planner sets that many threads
        number, config, name, iterations, wishes = RECIPES[model]
        dataset = write_raw(options.raw, options.work / "nnUNet_raw", number)
        first = options.work / "nnUNet_preprocessed" / dataset / "firstPlans.json"
        if not first.is_file():
            extract_fingerprints([number], num_processes=1, show_progress_bar=False)
            plan_experiments([number], overwrite_plans_name="firstPlans")
        os.environ["nnUNet_n_proc_DA"] = "0"  # augmentation in this process
        plans = make_plans(json.loads(first.read_text()), name, wishes)
        folder = train(options.work, dataset, plans, config, options.iterations or iterations)
        print(json.dumps({"model": model, "folder": str(folder)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
