"""Accuracy at equal budget, and what sampling by lesion does: the longer orders of ``training_vs_nnunet.py``.

``train``: hilum's default recipe and nnU-Net's default trainer, one after the other, the same network, patch, batch and
cases to learn from, each for as many seconds of wall time (``--seconds``; preparing is no part of it, nor are nnU-Net's
charts). hilum's schedule follows the clock; nnU-Net gets 50 epochs, each as long as fits. Each keeps its weights at
every eighth of its budget. ``--seconds 0 --set training.steps=N`` goes by steps instead, which no other program on the
machine can change. ``--sides class,lesion`` trains hilum twice, with ``patches.sampling`` set so.

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
from pathlib import Path
from typing import Any

import numpy as np

from training_vs_nnunet import RESULTS, peer_command, recipe_of

CONFIG = "tiny"
PARTS = 8
SMALL_ML = 2.0
COMPARED = (
    "region",
    "metric",
    "first",
    "first_mean",
    "second",
    "second_mean",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
)
SHOWN = 4  # test cases that the curves are drawn from


def train(options: argparse.Namespace) -> dict[str, Any]:
    """The trainings that ``--sides`` lists, one after the other; "class" and "lesion" are hilum with that sampling."""
    found: dict[str, Any] = {}
    runs = options.work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for side in options.sides.split(","):
        load, before = os.getloadavg()[0], _processor_seconds()
        if side == "nnunet":
            command = [*peer_command(options, "train"), CONFIG, options.device, str(options.seconds)]
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
    if options.seconds:
        wishes["training.budget"] = f'"{options.seconds:g}s"'
        wishes["training.checkpoint_minutes"] = options.seconds / 60 / PARTS
    recipe = recipe_of(options, CONFIG, wishes | more)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    prepared = options.work / "hilum" / CONFIG / "prepared"
    if prepared.is_dir():
        shutil.copytree(prepared, out / "prepared")
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
        "trainings": {side: {k: v for k, v in x.items() if k != "folder"} for side, x in made.items()}
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


def predict_own(options: argparse.Namespace, model: Any, names: list[str], out: Path, mirror: bool) -> None:
    """hilum's label maps of these cases: ``OUT/NAME.nii.gz``; what is there already stays."""
    from hilum.inference.predict import Predictor
    from hilum.model import Model, load_model
    from hilum.scans import read_scan, write_labels

    model = model if isinstance(model, Model) else load_model(model)
    predictor = Predictor(model, options.device, mirror=mirror, overlap=options.overlap)
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (out / f"{name}.nii.gz").is_file():
            labels = predictor.segment(read_scan(options.data / "painted" / name / "imaging.nii.gz"))
            write_labels(out / f"{name}.nii.gz", labels)


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


def scored(options: argparse.Namespace, sides: dict[str, Path], out: Path) -> dict[str, Any]:
    """``hilum evaluate`` for each side, ``hilum compare`` for both, and tumours one by one."""
    found: dict[str, Any] = {}
    for protocol in ("kits23", "plain"):
        for side, predictions in sides.items():
            said = ["--truth", options.data / "truth", "--prediction", predictions, "--protocol", protocol]
            hilum(
                "evaluate",
                *said,
                "--out",
                out / protocol / side,
                *(["--scheme", "kits"] if protocol == "plain" else []),
            )
        told = hilum("compare", *(out / protocol / side for side in sides), "--out", out / protocol / "compared")
        rows = [row for row in told["comparisons"] if row["metric"] in ("dice", "surface_dice", "lesion_f1", "nsd_2mm")]
        found[protocol] = [{key: row[key] for key in COMPARED} for row in rows]
    found["mean Dice of the KiTS23 regions"] = mean_dice([out / "kits23" / side / "scores.json" for side in sides])
    found["tumours"] = tumours(options.data / "truth", sides)
    return found


def mean_dice(files: list[Path], draws: int = 5000) -> dict[str, Any]:
    """The mean over regions and cases of each side, second minus first, and a paired bootstrap interval over cases."""
    tables = [json.loads(file.read_text())["cases"] for file in files]
    first, second = (
        np.array([[r["dice"] for r in table[case].values()] for case in tables[0]]).mean(1) for table in tables
    )
    gain = second - first
    picks = np.random.default_rng(0).integers(len(gain), size=(draws, len(gain)))
    ends = np.percentile(gain[picks].mean(1), [2.5, 97.5])
    return {
        **{file.parent.name: float(of.mean()) for file, of in zip(files, (first, second), strict=True)},
        "difference": float(gain.mean()),
        "interval": [float(x) for x in ends],
        "cases": len(gain),
        "each": {case: [float(a), float(b)] for case, a, b in zip(tables[0], first, second, strict=True)},
    }


def hilum(*words: Any) -> dict[str, Any]:
    """The command line's answer."""
    command = [sys.executable, "-m", "hilum", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def tumours(truth: Path, sides: dict[str, Path], draws: int = 5000) -> dict[str, Any]:
    """F1 of tumours pooled over cases, all and those below 2 mL, with paired bootstrap intervals over cases.

    A tumour is found if one predicted piece overlaps it with an IoU above 0.1, one to one. Among small ones a true
    tumour below 2 mL counts, and of the predicted pieces those below 2 mL that match no true tumour.
    """
    from hilum.judge.lesions import find_lesions
    from hilum.labels import SCHEMES
    from hilum.scans import read_labels

    names = sorted(path.name for path in truth.glob("*.nii.gz"))
    counts: dict[str, list[list[int]]] = {side: [] for side in sides}
    for name in names:
        true = read_labels(truth / name, SCHEMES["kits"])
        for side, folder in sides.items():
            guess = read_labels(folder / name, SCHEMES["kits"])
            lesions = find_lesions(true.array == 2, guess.array == 2, true.grid)
            rows, _ = lesions.matches(0.1)
            found = np.isin(np.arange(len(lesions.truth_voxels)), lesions.pairs[rows, 0])
            taken = np.isin(np.arange(len(lesions.prediction_voxels)), lesions.pairs[rows, 1])
            little = lesions.truth_voxels * lesions.voxel_ml < SMALL_ML
            bits = lesions.prediction_voxels * lesions.voxel_ml < SMALL_ML
            all_of = [found.sum(), (~found).sum(), (~taken).sum()]
            counts[side].append([*all_of, (found & little).sum(), (~found & little).sum(), (~taken & bits).sum()])
    rng = np.random.default_rng(0)
    picks = rng.integers(len(names), size=(draws, len(names)))
    answer: dict[str, Any] = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for side, table in counts.items():
        array = np.array(table)
        answer[side], drawn[side] = {}, {}
        for kind, at in (("all", 0), ("below 2 mL", 3)):
            drawn[side][kind] = _f1(array[picks][..., at : at + 3].sum(1))
            tp, missed, invented = (int(n) for n in array[:, at : at + 3].sum(0))
            answer[side][kind] = {
                "f1": float(_f1(array[:, at : at + 3].sum(0))),
                "interval": [float(x) for x in np.nanpercentile(drawn[side][kind], [2.5, 97.5])],
                "found": tp,
                "missed": missed,
                "invented": invented,
            }
    first, second = sides
    for kind in ("all", "below 2 mL"):
        gain = drawn[second][kind] - drawn[first][kind]
        answer[f"{second} minus {first}, {kind}"] = {
            "f1": answer[second][kind]["f1"] - answer[first][kind]["f1"],
            "interval": [float(x) for x in np.nanpercentile(gain, [2.5, 97.5])],
        }
    return answer


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, missed, invented = (counts[..., k].astype(float) for k in range(3))
    return np.asarray(2 * tp / np.maximum(2 * tp + missed + invented, 1e-9))


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
        model = load_model(own / "model")
        weights = {key.removeprefix(heading): x for key, x in tensors.items() if key.startswith(heading)}
        for mine in model.weights:
            for key, value in mine.items():
                value.copy_(weights[key])
        predict_own(options, model, names, aside / "hilum" / part.name, False)
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
        predict_own(options, imported, names, aside / "nnunet" / str(part), False)
        table = made["nnunet"]["curve"]
        near = [row for row in table if row[0] >= part * options.seconds / PARTS] or table[-1:]
        found["nnunet"].append([near[0][0], near[0][1], _mean_dice(aside, "nnunet", str(part))])
    return found


def _mean_dice(aside: Path, side: str, part: str) -> float:
    said = ["--truth", aside / "truth", "--prediction", aside / side / part, "--protocol", "kits23"]
    hilum("evaluate", *said, "--out", aside / "scores" / side / part)
    scores = json.loads((aside / "scores" / side / part / "scores.json").read_text())
    return float(scores["pooled"]["all_regions"]["mean_dice"]["value"])


def draw(found: dict[str, Any], stem: Path) -> None:
    """Loss and true Dice against seconds and steps: STEM.svg and STEM.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    for column, across in ((0, "seconds of training"), (1, "steps")):
        axes[1, column].set(xlabel=across, ylim=(0, 1))
        for row in (0, 1):
            axes[row, column].grid(color="#d4d9dc", linewidth=0.7)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("training loss (cross-entropy + 1 - Dice)")
    axes[1, 0].set_ylabel(f"true Dice, mean of regions, {SHOWN} test cases")
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
        predict_own(options, Path(made["folder"]) / "model", names, sides[by], False)
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
