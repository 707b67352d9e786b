"""Accuracy at equal budget, and what sampling by lesion does: the longer orders of ``training_vs_nnunet.py``.

``train``: hilum's default recipe and nnU-Net's default trainer, one after the other, the same network, patch, batch and
cases to learn from, each for as many seconds (preparing is no part of it, nor are nnU-Net's charts). ``--seconds`` is
wall time; ``--cpu-seconds`` processor time, loaders counted, which a busy machine changes little: hilum's clock and the
one that nnU-Net's epochs are fitted to become the processor's. hilum's schedule follows the clock; nnU-Net gets 50
epochs, each as long as fits, so that its own schedule ends with the budget too. Each keeps its weights at every eighth
of it. ``--seconds 0 --set training.steps=N`` goes by steps instead. ``--sides class,lesion`` trains hilum twice, with
``patches.sampling`` set so.

``judge``: the test cases segmented by both, with and without mirrored copies; ``hilum evaluate`` (kits23, and plain for
lesion F1) and ``hilum compare`` with paired bootstrap intervals; the kept weights on four test cases; curves of loss
and true Dice against seconds and steps as SVG and PNG.

``lesions``: the same for the two samplings, on cases with many tumours below 2 mL.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training_scores import answer_of, scored
from training_vs_nnunet import RESULTS, peer_command, recipe_of

CONFIG = "tiny"
PARTS = 8
MARGIN_MM = 24.0  # curves and sampling are judged in the kidneys' box and so much around it
SHOWN = 4  # test cases that the curves are drawn from


def train(options: argparse.Namespace) -> dict[str, Any]:
    """The trainings that ``--sides`` lists, one after the other; "class" and "lesion" are hilum with that sampling."""
    found: dict[str, Any] = {}
    runs = options.work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for side in options.sides.split(","):
        load, before = os.getloadavg()[0], _processor_seconds()
        if side == "nnunet":
            budget = [str(_budget(options)), "processor" if options.cpu_seconds else "wall"]
            command = [*peer_command(options, "train"), CONFIG, options.device, *budget]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            made = json.loads(done.stdout.splitlines()[-1])
        else:
            sampling = {} if side == "hilum" else {"patches.sampling": f'"{side}"'}
            made = train_own(options, runs / f"{side}{_tail(options)}", dict(_said(options)) | sampling)
        made |= {"processor_s": _processor_seconds() - before, "load": [load, os.getloadavg()[0]]}
        found[side] = made
        (runs / f"{side}{_tail(options)}.json").write_text(json.dumps(made))
        print(json.dumps({side: made}), flush=True)
    return found


def train_own(options: argparse.Namespace, out: Path, more: dict[str, Any]) -> dict[str, Any]:
    """One run of hilum with its default recipe; the weights at each eighth of it in OUT/parts."""
    from hilum.datasets import open_dataset
    from hilum.progress import Progress
    from hilum.training.loop import train as train_run

    wishes: dict[str, Any] = {"training.epoch_steps": 50}  # so that the curve has points
    if options.cpu_seconds:
        _go_by_processor_time()
    if budget := _budget(options):
        wishes["training.budget"] = f'"{budget:g}s"'
        wishes["training.checkpoint_minutes"] = budget / 60 / PARTS
    recipe = recipe_of(options, CONFIG, wishes | more)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    ready = options.work / "hilum" / CONFIG  # what ``prepare`` made
    if (ready / "prepared").is_dir():
        shutil.copytree(ready / "prepared", out / "prepared")
    for file in (ready / "fingerprint.json", ready / "plan.json"):
        if file.is_file():
            shutil.copy(file, out)
    stop = threading.Event()
    watcher = threading.Thread(target=_keep_parts, args=(out, stop), daemon=True)
    watcher.start()
    dataset = open_dataset(recipe.data.dataset, Path(recipe.data.path))
    made = train_run(recipe, dataset, out, fold=0, device=options.device, progress=Progress(stream=sys.stderr))
    time.sleep(1.5)
    stop.set()
    watcher.join()
    lines = [json.loads(line) for line in made.log.read_text().splitlines()]
    curve = [[x["seconds"], x["step"], x["loss"]] for x in lines if "epoch" in x]
    waits = [x["data_wait"] for x in lines if "epoch" in x and "data_wait" in x]
    return {"seconds": made.seconds, "steps": made.steps, "curve": curve, "data_wait": waits, "folder": str(out)}


def _budget(options: argparse.Namespace) -> float:
    return float(options.cpu_seconds or options.seconds)


def _go_by_processor_time() -> None:
    """hilum's clock of a run becomes this process's user and system seconds, of all its threads."""
    from hilum.training import choosing, pace, run

    class Clock:
        monotonic = staticmethod(time.process_time)

    for module in (choosing, pace, run):
        module.time = Clock  # type: ignore[assignment]


def _keep_parts(out: Path, stop: threading.Event) -> None:
    """Copy each checkpoint as it appears."""
    seen, number = 0.0, 0
    while not stop.wait(0.5):
        try:
            changed = (out / "checkpoint" / "state.json").stat().st_mtime
            if changed != seen:
                shutil.copytree(out / "checkpoint", out / "parts" / str(number + 1))
                seen, number = changed, number + 1
        except OSError:  # being renamed: next time
            shutil.rmtree(out / "parts" / str(number + 1), ignore_errors=True)


def judge(options: argparse.Namespace) -> dict[str, Any]:
    """Predictions, scores, comparison, curves."""
    from hilum.exchange import import_model

    runs = options.work / "runs"
    made = {side: json.loads((runs / f"{side}{tail}.json").read_text()) for side, tail in _both(options)}
    names = sorted(path.name.removesuffix(".nii.gz") for path in (options.data / "truth").glob("*.nii.gz"))
    found: dict[str, Any] = {
        "clock": "processor" if options.cpu_seconds else "wall",
        "trainings": {side: {k: v for k, v in x.items() if k != "folder"} for side, x in made.items()},
    }
    for mirror in (False, True) if options.mirror else (False,):
        word = "mirrored" if mirror else "plain"
        own, theirs = runs / f"hilum{_tail(options)}_{word}", runs / f"nnunet_{word}"
        predict_own(options, Path(made["hilum"]["folder"]) / "model", names, own, mirror)
        if options.imported:
            shutil.rmtree(runs / "imported", ignore_errors=True)
            folder = import_model(made["nnunet"]["folder"], runs / "imported").folder
            predict_own(options, folder, names, theirs, mirror)
        elif not (theirs / f"{names[-1]}.nii.gz").is_file():
            predict_peer(options, names, theirs, mirror, "checkpoint_final.pth")
        found[word] = scored(options, {"nnunet": theirs, "hilum": own}, runs / f"scores{_tail(options)}_{word}")
        print(json.dumps({word: found[word]}), flush=True)
    found["curves"] = curves(options, made, names[:SHOWN])
    if options.keep:
        draw(found, RESULTS / f"{time.strftime('%Y-%m-%d')}_training_curves{_tail(options)}")
    return found


def predict_own(
    options: argparse.Namespace, model: Any, names: list[str], out: Path, mirror: bool, margin_mm: float = 0.0
) -> None:
    """hilum's label maps of these cases: ``OUT/NAME.nii.gz``; what is there already stays.

    With a margin only the box of what is truly labelled and so much around it is looked at; all else is background.
    """
    from hilum.inference.predict import Predictor
    from hilum.model import Model, load_model
    from hilum.scans import read_labels, read_scan, write_labels

    model = model if isinstance(model, Model) else load_model(model)
    predictor = Predictor(model, options.device, mirror=mirror, overlap=options.overlap)
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (out / f"{name}.nii.gz").is_file():
            scan = read_scan(options.data / "painted" / name / "imaging.nii.gz")
            if margin_mm:
                labels = _in_box(predictor, scan, read_labels(_truth(options, name), predictor.scheme), margin_mm)
            else:
                labels = predictor.segment(scan)
            write_labels(out / f"{name}.nii.gz", labels)


def _truth(options: argparse.Namespace, name: str) -> Path:
    return Path(options.data) / "truth" / f"{name}.nii.gz"


def _in_box(predictor: Any, scan: Any, truth: Any, margin_mm: float) -> Any:
    where = np.argwhere(truth.array > 0)
    more = np.ceil(margin_mm / np.array(scan.spacing_mm)).astype(int)
    first = np.maximum(where.min(0) - more, 0)
    last = np.minimum(where.max(0) + 1 + more, scan.shape)
    labels = np.zeros(scan.shape, np.uint8)
    box = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    labels[box] = predictor.segment(scan.cropped(first, last)).array
    return scan.with_array(labels)


def predict_peer(options: argparse.Namespace, names: list[str], out: Path, mirror: bool, checkpoint: str) -> None:
    """nnU-Net's label maps of these cases."""
    images = out.with_name(f"{out.name}_images")
    images.mkdir(parents=True, exist_ok=True)
    for name in names:
        link = images / f"{name}_0000.nii.gz"
        if not link.exists():
            link.symlink_to((options.data / "painted" / name / "imaging.nii.gz").resolve())
    said = [CONFIG, options.device, str(images), str(out), "yes" if mirror else "no", checkpoint]
    subprocess.run([*peer_command(options, "predict"), *said], stdout=subprocess.DEVNULL, check=True)
    for file in out.glob("*.nii.gz"):
        if file.name.removesuffix(".nii.gz") not in names:
            file.unlink()


def curves(options: argparse.Namespace, made: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Mean Dice of the KiTS23 regions over some test cases, by the weights kept on the way.

    Both sides' weights are used by hilum here (nnU-Net's imported), which is quicker; ``judge`` has its own.
    """
    from hilum.exchange import import_model
    from hilum.model import load_model, read_tensors

    aside = options.work / "runs" / f"curves{_tail(options)}"
    (aside / "truth").mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(options.data / "truth" / f"{name}.nii.gz", aside / "truth")
    found: dict[str, list[list[float]]] = {"hilum": [], "nnunet": []}
    own = Path(made["hilum"]["folder"])
    for part in sorted((own / "parts").iterdir(), key=lambda folder: int(folder.name)):
        facts = json.loads((part / "state.json").read_text())
        tensors = read_tensors(part / "tensors.safetensors", facts["sha256"])
        heading = "ema/" if any(key.startswith("ema/") for key in tensors) else "model/"
        weights = {key.removeprefix(heading): x for key, x in tensors.items() if key.startswith(heading)}
        model = replace(load_model(own / "model"), weights=(weights,))  # its own are read from its file when asked
        predict_own(options, model, names, aside / "hilum" / part.name, False, MARGIN_MM)
        found["hilum"].append([facts["seconds"], facts["step"], _mean_dice(aside, "hilum", part.name)])
    theirs = Path(made["nnunet"]["folder"])
    for part in range(1, PARTS + 1):
        kept, copy = theirs / "fold_0" / f"part_{part}.pth", aside / "nnunet_parts" / str(part)
        if not kept.is_file():
            continue
        (copy / "fold_0").mkdir(parents=True, exist_ok=True)
        for name in ("plans.json", "dataset.json"):
            shutil.copy(theirs / name, copy / name)
        shutil.copy(kept, copy / "fold_0" / "checkpoint_final.pth")
        shutil.rmtree(aside / "imported", ignore_errors=True)
        imported = import_model(copy, aside / "imported").folder
        predict_own(options, imported, names, aside / "nnunet" / str(part), False, MARGIN_MM)
        table = made["nnunet"]["curve"]
        near = [row for row in table if row[0] >= part * _budget(options) / PARTS] or table[-1:]
        found["nnunet"].append([near[0][0], near[0][1], _mean_dice(aside, "nnunet", str(part))])
    return found


def _mean_dice(aside: Path, side: str, part: str) -> float:
    said = ["--truth", aside / "truth", "--prediction", aside / side / part, "--protocol", "kits23"]
    answer_of("evaluate", *said, "--out", aside / "scores" / side / part)
    scores = json.loads((aside / "scores" / side / part / "scores.json").read_text())
    return float(scores["pooled"]["all_regions"]["mean_dice"]["value"])


def draw(found: dict[str, Any], stem: Path) -> None:
    """Loss and true Dice against seconds and steps: STEM.svg and STEM.png."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for side, colour, marker in (("nnunet", "#D55E00", "s"), ("hilum", "#0072B2", "o")):
        losses, dice = np.array([row[:3] for row in found["trainings"][side]["curve"]]), np.array(found["curves"][side])
        name = {"nnunet": "nnU-Net"}.get(side, side)
        losses[:, 2] += side == "nnunet"  # its Dice loss is minus the Dice, hilum's one minus it
        for column in (0, 1):
            axes[0, column].plot(losses[:, column], losses[:, 2], color=colour, linewidth=1.4, label=name)
            axes[1, column].plot(dice[:, column], dice[:, 2], color=colour, marker=marker, linewidth=1.4, label=name)
    for column, across in ((0, f"{found['clock']} seconds of training"), (1, "steps")):
        axes[1, column].set(xlabel=across)
        axes[1, column].margins(y=0.1)
        axes[1, column].set_ylim(bottom=0)
        for row in (0, 1):
            axes[row, column].set_xlim(left=0)
            axes[row, column].grid(color="#d4d9dc", linewidth=0.7)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("training loss\n(cross-entropy + 1 - Dice)")
    axes[1, 0].set_ylabel(f"true Dice, mean of 3 regions,\n{SHOWN} test cases, kidneys' box")
    axes[0, 0].legend(frameon=False)
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    figure.savefig(f"{stem}.png", dpi=110)


def lesions(options: argparse.Namespace) -> dict[str, Any]:
    """What two runs of hilum that differ in how patches are centred find of small tumours."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (options.data / "truth").glob("*.nii.gz"))
    sides, trainings = {}, {}
    for by in ("class", "lesion"):
        made = json.loads((options.work / "runs" / f"{by}{_tail(options)}.json").read_text())
        trainings[by] = {key: value for key, value in made.items() if key not in ("curve", "folder")}
        sides[by] = options.work / "runs" / f"predicted_{by}{_tail(options)}"
        predict_own(options, Path(made["folder"]) / "model", names, sides[by], False, MARGIN_MM)
    out = options.work / "runs" / f"scores_sampling{_tail(options)}"
    return {"trainings": trainings, **scored(options, sides, out)}


def _said(options: argparse.Namespace) -> list[tuple[str, str]]:
    return [(text.partition("=")[0], text.partition("=")[2]) for text in options.set]


def _tail(options: argparse.Namespace) -> str:
    return f"_{options.name}" if options.name else ""


def _both(options: argparse.Namespace) -> list[tuple[str, str]]:
    return [("nnunet", ""), ("hilum", _tail(options))]


def _processor_seconds() -> float:
    """User and system seconds of this process and the finished ones below it."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
