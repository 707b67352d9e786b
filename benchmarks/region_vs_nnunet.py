"""Region first beside nnU-Net v2: a trained model of two stages on the scan of a whole torso.

    python benchmarks/region_vs_nnunet.py patients --work WORK
    python benchmarks/region_vs_nnunet.py train    --work WORK [--steps 800] [--locator-steps 2000]
    python benchmarks/region_vs_nnunet.py export   --work WORK --peer PEER
    python benchmarks/region_vs_nnunet.py run      --work WORK --peer PEER [--rounds 1] [--scan FILE ...] [--keep]

``patients``: synthetic patients from the chest to the pelvis, most at 1.6 mm, some and the two held out on a
scanner's grid (512 columns). ``train``: one recipe of hilum's; a locator at 6 mm, then at 1.6 mm a plain U-Net of six
stages of 12 to 96 channels, learning on smaller patches from anywhere in the scan. ``export``: the network that nnU-Net
plans for a patch of 48x96x96 (32 to 320 channels), whose first channels are those that learnt and whose other weights
are zero: it costs what any such network costs, and says what the smaller one says. It is written as a folder of
nnU-Net v2 (``WORK/nnUNet_results``), and that folder imported (``hilum model import``) with the locator beside it
(``WORK/model``); both must hold equal tensors.

``run``: whole processes, taking turns on the same scan: nnU-Net without mirrored copies (PEER is an environment with
nnunetv2, see ``inference_vs_nnunet.py``), hilum whole and region first, both in fp32, and ``hilum segment`` region
first, which measures and writes a report too. Seconds, processor seconds, peak memory of the process tree, tiles asked
of all; equal voxels and Dice of each label: whole against nnU-Net, region first against whole and against nnU-Net, all
against the truth where the scan has one. The last line is JSON; ``--keep`` writes it to benchmarks/results too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_vs_nnunet import RESULTS, agreement, measured, own_run, peer_run
from train_nnunet_peer import architecture

SPACING = [1.6, 1.6, 1.6]
PATCH = [48, 96, 96]
NETWORK = {
    "features": [32, 64, 128, 256, 320, 320],
    "kernels": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "convs_per_stage": [2] * 6,
}
LEARNT = {**NETWORK, "features": [12, 24, 48, 96, 96, 96]}  # what a few minutes of a processor are enough for
WAYS = ["nnunet", "whole", "region first", "hilum segment"]
COSTS = ("wall_s", "cpu_s", "peak_mb")
PEER_WRITE = """
import json, sys, torch
from pathlib import Path
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
folder, weights = Path(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
plans = PlansManager(json.loads((folder / "plans.json").read_text())); config = plans.get_configuration("3d_fullres")
network = nnUNetTrainer.build_network_architecture(plans, config, 1, int(sys.argv[3]), enable_deep_supervision=False)
network.load_state_dict(weights, strict=False)
state = network.state_dict()  # with the second names that nnU-Net gives to the same tensors
assert all(torch.equal(state[key], value) for key, value in weights.items())
kept = {value.data_ptr() for key, value in state.items() if key in weights}
assert all(value.data_ptr() in kept for value in state.values())
(folder / "fold_0").mkdir(exist_ok=True)
torch.save({"network_weights": state, "init_args": {"configuration": "3d_fullres", "fold": 0}, "current_epoch": 1,
            "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1, 2)},
           folder / "fold_0" / "checkpoint_final.pth")
print(json.dumps({"tensors": len(weights), "with_second_names": len(state)}))
"""
# name: cases, seed, columns rows slices, mm
SETS = {
    "long": (30, 930, (256, 224, 440), (1.6, 1.6, 1.6)),
    "coarse": (12, 900, (256, 224, 300), (1.6, 1.6, 1.6)),
    "native": (3, 940, (512, 448, 384), (0.8, 0.8, 1.25)),
    "held_out": (2, 960, (512, 512, 460), (0.8, 0.8, 1.5)),
}


def patients(options: argparse.Namespace) -> dict[str, Any]:
    """Synthetic patients with contrast medium; those to learn from in one folder of KiTS23's layout."""
    from hilum.phantom import write_set
    from hilum.progress import Progress

    count = 0
    for name, (cases, seed, shape, spacing) in SETS.items():
        made = write_set(
            options.work / "phantoms" / name,
            cases,
            seed,
            layout="folder" if name == "held_out" else "kits23",  # nnU-Net lists voxels as the file does
            phase="nephrographic",
            shape=shape,
            spacing_mm=spacing,
            workers=1,
            progress=Progress(stream=sys.stderr),
        )
        for case in made if name != "held_out" else ():
            link = options.work / "cases" / f"case_{count:05d}"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(case.image.parent.resolve())
            count += 1
    return {"cases": count}


def recipe_of(options: argparse.Namespace) -> Any:
    """Two stages: hilum's default recipe, with the demo's way of learning fast."""
    from hilum.config import read_recipe

    network = ", ".join(f"{key} = {json.dumps(value)}" for key, value in LEARNT.items())
    said = {
        "data.dataset": '"kits23"',
        "data.path": json.dumps(str(options.work / "cases")),
        "prepare.spacing_mm": SPACING,
        "prepare.patch": [32, 64, 64],
        "prepare.batch": 2,
        "network.options": f"{{ {network} }}",
        "locator.spacing_mm": 6.0,
        "locator.patch": [32, 48, 48],
        "locator.steps": options.locator_steps,
        "patches.within_mm": 1000.0,  # anywhere: it is asked about the whole scan too
        "patches.foreground": 0.5,
        "patches.augment": '"light"',
        "patches.augment_options": "{ noise_probability = 0.5, noise_sd = [0.0, 0.4] }",
        "training.steps": options.steps,
        "training.epoch_steps": 50,
        "training.optimizer": '"adamw"',
        "training.learning_rate": 0.002,
        "training.weight_decay": 0.01,
        "training.warmup_steps": 20,
        "training.ema": 0.98,
        "training.validation_cases": 0,
    }
    return read_recipe("default", [f"{key}={value}" for key, value in said.items()])


def train_both(options: argparse.Namespace) -> dict[str, Any]:
    """The locator and the fine network; a run that was stopped goes on."""
    from hilum.datasets import open_dataset
    from hilum.progress import Progress
    from hilum.training.loop import train

    recipe = recipe_of(options)
    dataset = open_dataset(recipe.data.dataset, Path(recipe.data.path))
    made = train(
        recipe,
        dataset,
        options.work / "run",
        fold="all",
        device="cpu",
        workers=1,
        progress=Progress(stream=sys.stderr),
    )
    return {"model": str(made.model), "seconds": made.seconds, "steps": made.steps}


def export(options: argparse.Namespace) -> dict[str, Any]:
    """The fine network as nnU-Net's folder; that folder imported, with the locator beside it."""
    import torch

    from hilum.exchange import import_model
    from hilum.model import load_model, save_model

    model = load_model(options.work / "run" / "model")
    folder = options.work / "nnUNet_results" / "Dataset001_Torso" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans_of(model.plan), indent=1))
    labels = {"background": 0} | {label.name: label.value for label in model.scheme.labels}
    table = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 39, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(table))
    weights = widened(model.weights[0], model.spec.out_channels)
    torch.save(weights, options.work / "weights.pth")
    command = [str(options.peer / "bin" / "python"), "-c", PEER_WRITE, str(folder), str(options.work / "weights.pth")]
    done = subprocess.run([*command, str(len(labels))], stdout=subprocess.PIPE, text=True, check=True)
    imported = load_model(import_model(folder, options.work / "imported", scheme=model.scheme).folder)
    same = all(torch.equal(imported.weights[0][key], value) for key, value in weights.items())
    if not same or len(imported.weights[0]) != len(weights):
        raise SystemExit("the imported weights differ from those that were trained")
    spec, plan, inference = imported.spec, imported.plan, replace(imported.inference, mirror=False)
    made = save_model(
        options.work / "model",
        spec,
        list(imported.weights),
        plan,
        imported.scheme,
        inference,
        locator=options.work / "run" / "model" / "locator",
    )
    shutil.rmtree(options.work / "imported")
    return {"nnunet": str(folder), "model": str(made), "same_weights": same, **json.loads(done.stdout.splitlines()[-1])}


def widened(learnt: Mapping[str, Any], outputs: int) -> dict[str, Any]:
    """The weights of the network of ``LEARNT`` within one of ``NETWORK``; norms of the other channels give zero."""
    import torch

    from hilum import networks

    made = {}
    for name, room in networks.build("plain_unet", NETWORK, 1, outputs, 3).state_dict().items():
        small, into = learnt[name], torch.zeros_like(room)
        beside = name.startswith("decoder.stages.") and name.endswith(".convs.0.conv.weight")  # the way up, the skip
        parts = zip(small.chunk(2, 1), into.chunk(2, 1), strict=True) if beside else [(small, into)]
        for part, place in parts:
            place[tuple(slice(0, n) for n in part.shape)] = part
        made[name] = into
    return made


def plans_of(plan: Any) -> dict[str, Any]:
    """nnU-Net's plans of the trained network: its own patch, our spacing and intensities, else its defaults."""
    of = plan.normalisation
    resampling = {"order_z": 0, "force_separate_z": None}
    table = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH,
        "median_image_size_in_voxels": list(plan.median_shape),
        "spacing": list(plan.spacing_mm),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": architecture(NETWORK["features"], NETWORK["kernels"], NETWORK["strides"], False),
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        table[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        table[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", "order": order, **resampling}
    return {
        "dataset_name": "Dataset001_Torso",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(plan.spacing_mm),
        "original_median_shape_after_transp": list(plan.median_shape),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": table},
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": of.mean, "std": of.std, "percentile_00_5": of.low, "percentile_99_5": of.high}
        },
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides on each scan, taking turns."""
    folder = next((options.work / "nnUNet_results").glob("*/nnUNetTrainer__*"))
    held_out = sorted((options.work / "phantoms" / "held_out" / "images").glob("*.nii.gz"))
    rows = [compare(options, folder, scan) for scan in options.scans or held_out[: options.patients]]
    return {
        "benchmark": "region_vs_nnunet",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "rows": rows,
    }


def compare(options: argparse.Namespace, folder: Path, scan: Path) -> dict[str, Any]:
    """One scan: times, tiles and agreement."""
    name = scan.name.removesuffix(".nii.gz")
    out = options.work / "out" / name
    files = {way: out / f"{way.replace(' ', '_')}.nii.gz" for way in ("whole", "region first")}
    files |= {"nnunet": out / "peer" / "case.nii.gz", "hilum segment": out / "segment" / name / "labels.nii.gz"}
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in files}
    load = [os.getloadavg()[0]]
    for _ in range(options.rounds):
        for way in options.ways:
            if way == "nnunet":
                made = peer_run(options.peer, str(folder), scan, out / "peer", False)
            elif way == "hilum segment":
                said = ["--model", options.work / "model", "--out", out / "segment", "--precision", "fp32", "--quiet"]
                command = [sys.executable, "-m", "hilum", "segment", scan, "--no-mirror", "--overwrite", *said]
                made = {key: value for key, value in measured([str(x) for x in command]).items() if key in COSTS}
            else:
                wishes = {"mirror": False, "precision": "fp32", "region": way == "region first"}
                made = own_run(options.work / "model", scan, files[way], **wishes)
            runs[way].append(made)
            print(json.dumps({"scan": name, "way": way, **made}), flush=True)
    row: dict[str, Any] = {"scan": name, "load": [*load, os.getloadavg()[0]], "runs": runs}
    for key in COSTS:
        row[key] = {way: statistics.median(x[key] for x in made) for way, made in runs.items() if made}
    for key in COSTS:
        row[f"nnunet_by_hilum_{key}"] = {
            way: row[key]["nnunet"] / number for way, number in row[key].items() if "nnunet" in row[key]
        }
    truth = scan.parent.with_name("labels") / scan.name
    pairs = {
        "whole to nnunet": ("nnunet", "whole"),
        "region first to whole": ("whole", "region first"),
        "region first to nnunet": ("nnunet", "region first"),
    }
    row["agreement"] = {said: agreement(files[a], files[b]) for said, (a, b) in pairs.items() if runs[a] and runs[b]}
    if truth.is_file():
        row["truth"] = {way: agreement(truth, file)["labels"] for way, file in files.items() if runs[way]}
    print(json.dumps({key: row[key] for key in row if key != "runs"}), flush=True)
    return row


def main() -> int:
    """The order that the command line gives."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("order", choices=["patients", "train", "export", "run"])
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--peer", type=Path, help="environment with nnunetv2")
    words.add_argument("--steps", type=int, default=800)
    words.add_argument("--locator-steps", type=int, default=2000)
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--patients", type=int, default=1, help="held-out patients to run on")
    words.add_argument("--scan", dest="scans", action="append", type=Path, default=[], help="instead of them")
    words.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    words.add_argument("--keep", action="store_true")
    options = words.parse_args()
    orders = {"patients": patients, "train": train_both, "export": export, "run": run}
    answer = orders[options.order](options)
    if options.keep:
        (RESULTS / f"{answer['date']}_region_vs_nnunet.json").write_text(json.dumps(answer, indent=1) + "\n")
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
