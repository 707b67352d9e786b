"""nnU-Net's side of ``training_vs_nnunet.py``: runs in the peer's own environment, never in hilum's.

    prepare WORK PAINTED FOLDS PLAN_JSON...              raw folder, plans, preprocessing
    steps   WORK PLANS DEVICE                            takes orders from stdin, a JSON line each
    train   WORK PLANS DEVICE SECONDS CLOCK              a whole run that ends at its budget; CLOCK: wall or processor
    predict WORK PLANS DEVICE IMAGES OUT MIRROR [FILE]   label maps by one of the run's checkpoints

Data loading, augmentation, network, loss, deep supervision, optimiser and schedule are nnunetv2's own; what is ours are
the plans (spacing, patch, batch, features and strides as hilum's plan says, so that both have the same network), the
clock, and that an epoch has as many iterations as fit: its 50 epochs, each with a fifth as many validation iterations,
end when the budget does, and so does its poly schedule. The processor's clock counts the workers that load and augment
too. Each answer is one JSON line on stdout.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processor import own_seconds
from train_nnunet_peer import architecture

DATASET = "Dataset001_Painted"
CONFIG = "3d_fullres"
EPOCHS = 50
PARTS = 8  # checkpoints that are kept on the way


def prepare(work: Path, painted: Path, folds_file: Path, plan_files: list[Path]) -> dict[str, Any]:
    """nnU-Net's raw folder and preprocessed cases; one file of plans for each of hilum's."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess_dataset,
    )

    raw, ready = work / "nnUNet_raw" / DATASET, work / "nnUNet_preprocessed" / DATASET
    names = sorted(path.parent.name for path in painted.glob("*/imaging.nii.gz"))
    for name in names:
        for part, file, target in (
            ("imagesTr", "imaging", f"{name}_0000.nii.gz"),
            ("labelsTr", "segmentation", f"{name}.nii.gz"),
        ):
            (raw / part).mkdir(parents=True, exist_ok=True)
            if not (raw / part / target).exists():
                shutil.copy(painted / name / f"{file}.nii.gz", raw / part / target)
    table = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(table, indent=1))
    begin = time.perf_counter()
    if not (ready / "firstPlans.json").is_file():
        extract_fingerprints([1], num_processes=1, show_progress_bar=False)
        plan_experiments([1], overwrite_plans_name="firstPlans")
    first = json.loads((ready / "firstPlans.json").read_text())
    shutil.copy(raw / "dataset.json", ready / "dataset.json")
    test, rest = json.loads(folds_file.read_text())["folds"]
    (ready / "splits_final.json").write_text(json.dumps([{"train": rest, "val": test}]))
    for file in plan_files:
        (ready / f"{file.stem}.json").write_text(json.dumps(plans_of(first, json.loads(file.read_text()), file.stem)))
    if not (ready / "benchmark").is_dir():
        preprocess_dataset(1, plan_files[0].stem, [CONFIG], [1], show_progress_bar=False)
    return {"seconds": time.perf_counter() - begin, "cases": len(names)}


def plans_of(first: dict[str, Any], own: dict[str, Any], name: str) -> dict[str, Any]:
    """nnU-Net's plans with the patch, batch and network of hilum's plan (``network`` says which encoder)."""
    plans = copy.deepcopy(first)
    base = next(table for table in first["configurations"].values() if "normalization_schemes" in table)
    kernels = [list(kernel) for kernel in own["kernels"]]
    made = {
        **copy.deepcopy(base),
        "data_identifier": "benchmark",
        "batch_size": own["batch"],
        "patch_size": own["patch"],
        "spacing": own["spacing_mm"],
        "batch_dice": True,
        "architecture": architecture(own["features"], kernels, own["strides"], own["network"] == "residual_unet"),
    }
    return plans | {"plans_name": name, "configurations": {CONFIG: made}}


def trainer_of(work: Path, plans_name: str, device: str, clock: Callable[[], float] = time.perf_counter) -> Any:
    """nnU-Net's default trainer for these plans; only its picture of the network is left out."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Trainer

    ready = work / "nnUNet_preprocessed" / DATASET
    plans = json.loads((ready / f"{plans_name}.json").read_text())
    table = json.loads((ready / "dataset.json").read_text())

    class nnUNetTrainer(Trainer):  # noqa: N801 - nnUNetv2_predict looks the class up by this name
        budget_s = 0.0

        def plot_network_architecture(self):  # type: ignore[no-untyped-def]
            pass

        def on_train_start(self):  # type: ignore[no-untyped-def]
            super().on_train_start()
            self.begin, self.paused, self.taken, self.curve, self.kept = clock(), 0.0, 0, [], 0
            self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 5, 1

        def spent(self) -> float:
            return clock() - self.begin - self.paused

        def on_epoch_end(self):  # type: ignore[no-untyped-def]
            begin = clock()  # charts and checkpoints are no part of the budget: its epochs are short here
            super().on_epoch_end()
            done = self.num_iterations_per_epoch
            self.taken += done
            loss, dice = self.logger.get_value("train_losses", step=-1), self.logger.get_value("mean_fg_dice", step=-1)
            self.curve.append([begin - self.begin - self.paused, self.taken, float(loss), float(dice)])
            while self.kept < PARTS and self.curve[-1][0] >= (self.kept + 1) * self.budget_s / PARTS:
                self.kept += 1
                self.save_checkpoint(str(Path(self.output_folder) / f"part_{self.kept}.pth"))
            self.paused += clock() - begin
            left = self.num_epochs - self.current_epoch
            if left > 0:
                each = (self.spent() - self.before) / done
                fits = (self.budget_s - self.spent()) / left / each
                self.num_iterations_per_epoch = max(1, round(fits))
                self.num_val_iterations_per_epoch = max(1, round(fits / 5))

        def on_epoch_start(self):  # type: ignore[no-untyped-def]
            super().on_epoch_start()
            self.before = self.spent()

    trainer = nnUNetTrainer({**plans, "continue_training": False}, CONFIG, 0, table, torch.device(device))
    trainer.num_epochs = EPOCHS
    return trainer


def take_orders(work: Path, plans_name: str, device: str) -> None:
    """Steps on demand: ``{"steps": n, "off": false}`` answers seconds, seconds waited for batches, losses."""
    import torch

    say, sys.stdout = sys.stdout, sys.stderr  # the trainer talks
    trainer = trainer_of(work, plans_name, device)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    kept = next(trainer.dataloader_train)
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    parameters = sum(p.numel() for p in trainer.network.parameters())
    print(json.dumps({"ready": True, "parameters": parameters, "torch": torch.__version__}), file=say, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        waited, losses = 0.0, []
        synchronise()
        begin = time.perf_counter()
        for _ in range(order["steps"]):
            asked = time.perf_counter()
            batch = kept if order["off"] else next(trainer.dataloader_train)
            waited += time.perf_counter() - asked
            losses.append(float(trainer.train_step(batch)["loss"]))
        synchronise()
        answer = {"seconds": time.perf_counter() - begin, "wait_s": waited, "losses": losses}
        print(json.dumps(answer), file=say, flush=True)
    os._exit(0)  # its workers would keep the process for a while


def train(work: Path, plans_name: str, device: str, seconds: float, clock_name: str) -> dict[str, Any]:
    """A run that ends at its budget; checkpoints at each eighth of it."""
    say, sys.stdout = sys.stdout, sys.stderr
    clock = {"wall": time.perf_counter, "processor": own_seconds}[clock_name]
    trainer = trainer_of(work, plans_name, device, clock)
    trainer.budget_s = seconds
    begin = clock()
    trainer.run_training()
    sys.stdout = say
    return {
        "seconds": trainer.curve[-1][0],
        "steps": trainer.taken,
        "curve": trainer.curve,
        "before_s": trainer.begin - begin,
        "folder": str(trainer.output_folder_base),
    }


def predict(folder: str, device: str, images: Path, out: Path, mirror: bool, checkpoint: str) -> dict[str, Any]:
    """``nnUNetv2_predict`` on a folder of scans."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirror,
        device=torch.device(device),
        perform_everything_on_device=device != "cpu",
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(folder, (0,), checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    predictor.predict_from_files_sequential(str(images), str(out), save_probabilities=False, overwrite=True)
    return {"seconds": time.perf_counter() - begin}


def main() -> int:
    """The order that the command line gives."""
    what, work, *rest = sys.argv[1:]
    for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[part] = str((Path(work) / part).resolve())
        Path(os.environ[part]).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    answer: dict[str, Any] = {}
    if what == "prepare":
        os.environ["nnUNet_n_proc_DA"] = "1"
        answer = prepare(Path(work), Path(rest[0]), Path(rest[1]), [Path(file) for file in rest[2:]])
    elif what == "steps":
        take_orders(Path(work), rest[0], rest[1])
    elif what == "train":
        answer = train(Path(work), rest[0], rest[1], float(rest[2]), rest[3])
    else:
        folder = Path(work) / "nnUNet_results" / DATASET / f"nnUNetTrainer__{rest[0]}__{CONFIG}"
        checkpoint = rest[5] if len(rest) > 5 else "checkpoint_final.pth"
        answer = predict(str(folder), rest[1], Path(rest[2]), Path(rest[3]), rest[4] == "yes", checkpoint)
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
