"""nnU-Net v2 beside hilum: one trained model, the same scans, the same patches, both sides alternating.

    python benchmarks/inference_vs_nnunet.py --peer PEER --model plain=FOLDER [--model resenc=FOLDER ...] \\
        --scan ct.nii.gz [--scan DICOM_FOLDER ...] [--rounds 3] [--quick] [--keep]

PEER is the environment with nnunetv2 from PyPI (``PEER/bin/python``); FOLDER a trainer's folder of its
nnUNet_results, such as ``train_nnunet_peer.py`` makes. Both run on the CPU with as many threads as there are cores.
Scans that are DICOM are given to nnU-Net as NIfTI. ``--quick`` does one round without mirroring, small arrays and two
numbers of slices: it shows that everything runs, and its times mean nothing. What is measured, in this order:

* agreement and wall time of the whole process for each model and scan, with and without mirrored copies: share of equal
  labels, Dice of each label, seconds and seconds of processors (which other work on the machine changes less), peak
  memory of the process tree (proportional set sizes, every 200 ms); hilum whole in fp32 and bf16, and region first;
* the step after the network alone: 4 classes of random logits to 512x512x300;
* preparing alone: 512x512x300 to the plan's spacing;
* start to first patch, by parts;
* seconds and peak memory of hilum against the number of slices.

The last line is JSON; ``--keep`` writes it to benchmarks/results too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PEER_EXPORT = """
import json, sys, time, types, numpy as np, torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as convert
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
folder, shape, out = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
plans = PlansManager(folder + "/plans.json"); table = json.load(open(folder + "/dataset.json"))
config = plans.get_configuration("3d_fullres")
labels = {"background": 0, "a": 1, "b": 2, "c": 3}
manager = plans.get_label_manager({**table, "labels": labels, "regions_class_order": None})
logits = torch.from_numpy(np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32))
facts = {"spacing": [1.0, 0.8, 0.8], "shape_after_cropping_and_before_resampling": out, "shape_before_cropping": out,
         "bbox_used_for_cropping": [[0, n] for n in out]}
begin = time.perf_counter()
convert(logits, plans, config, manager, facts, False, torch.get_num_threads())
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""
PEER_PREPARE = """
import json, sys, time, numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
folder, shape = sys.argv[1], json.loads(sys.argv[2])
plans = PlansManager(folder + "/plans.json"); table = json.load(open(folder + "/dataset.json"))
image = np.random.default_rng(0).normal(40, 200, (1, *shape)).astype(np.float32)
begin = time.perf_counter()
DefaultPreprocessor(verbose=False).run_case_npy(
    image, None, {"spacing": [1.0, 0.8, 0.8]}, plans, plans.get_configuration("3d_fullres"), table)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""
PEER_START = """
import json, sys, time
begin = time.perf_counter(); parts = {}
def done(name):
    global begin
    parts[name] = time.perf_counter() - begin; begin = time.perf_counter()
import torch; done("import torch")
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor; done("import nnunetv2")
p = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
p.initialize_from_trained_model_folder(sys.argv[1], None); done("load model")
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
data, _, _ = DefaultPreprocessor(verbose=False).run_case(
    [sys.argv[2]], None, p.plans_manager, p.configuration_manager, p.dataset_json); done("read and prepare")
with torch.inference_mode():
    p.network.eval()(torch.zeros((1, data.shape[0], *p.configuration_manager.patch_size))); done("first patch")
print(json.dumps(parts))
"""
OWN = """
import json, sys, time
begin = start = time.perf_counter(); parts = {}
def done(name):
    global begin
    parts[name] = time.perf_counter() - begin; begin = time.perf_counter()
wishes = json.loads(sys.argv[1])
import torch; done("import torch")
from hilum import device
from hilum.inference import postprocess
from hilum.inference.memory import lend_pages
from hilum.inference.predict import Predictor
from hilum.model import load_model
from hilum.scans import read_scan, write_labels
done("import hilum")
device.use_threads(); lend_pages()
predictor = Predictor(load_model(wishes["model"]), "cpu", mirror=wishes["mirror"], precision=wishes["precision"],
                      region=wishes["region"]); done("load model")
scan = read_scan(wishes["scan"]); done("read")
case = predictor.prepare(scan, streamed=not wishes.get("start")); done("prepare")
if wishes.get("start"):
    predictor.folds.logits(torch.zeros((1, *predictor.plan.patch), dtype=torch.int16)); done("first patch")
else:
    made = predictor.predict(case); done("predict")
    write_labels(wishes["out"], scan.with_array(made.labels.array)); done("write")
    parts |= {"tiles": made.tiles, "skipped": made.skipped, "export": made.seconds["export"], "region": made.region}
print(json.dumps(parts))
"""
OWN_EXPORT = """
import json, sys, time, torch
from hilum import device
from hilum.inference.export import LabelExporter
device.use_threads()
shape, out = json.loads(sys.argv[1]), json.loads(sys.argv[2])
generator = torch.Generator().manual_seed(0)
exporter = LabelExporter(tuple(shape), tuple(out), 4); spent = 0.0
for first in range(0, shape[0], 8):  # as slabs come from the network: a full-size array never exists
    slab = torch.randn((4, min(8, shape[0] - first), *shape[1:]), generator=generator)
    begin = time.perf_counter(); exporter.take(slab); spent += time.perf_counter() - begin
print(json.dumps({"seconds": spent}))
"""
OWN_PREPARE = """
import json, sys, time, numpy as np
from hilum.model import load_model
from hilum.prepare.preprocess import prepare_scan
from hilum.volume import Volume
shape = json.loads(sys.argv[2]); plan = load_model(sys.argv[1]).plan
image = np.random.default_rng(0).normal(40, 200, shape).astype(np.int16)
affine = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
begin = time.perf_counter()
prepare_scan(Volume(image, affine).oriented("LPS"), plan)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""


def tree_bytes(pid: int) -> int:
    """Proportional set sizes of a process and all below it."""
    total, todo = 0, [pid]
    while todo:
        here = todo.pop()
        try:
            rollup = Path(f"/proc/{here}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
            for task in Path(f"/proc/{here}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return total


def measured(command: list[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a process: wall seconds, peak memory of its tree, its last line of JSON if it prints one."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{out[-2000:]}\n{err[-3000:]}")
    answer = [line for line in out.splitlines() if line.startswith("{")]
    told = json.loads(answer[-1]) if answer else {}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_s": time.perf_counter() - begin, "cpu_s": spent, "peak_mb": peak[0] / 1e6, **told}


def peer_run(peer: Path, folder: str, scan: Path, out: Path, mirror: bool) -> dict[str, Any]:
    """``nnUNetv2_predict_from_modelfolder`` on one scan (``nnUNetv2_predict`` with the folder said outright)."""
    source = out / "in"
    source.mkdir(parents=True, exist_ok=True)
    link = source / "case_0000.nii.gz"
    if not link.exists():
        link.symlink_to(scan.resolve())
    env = os.environ | dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(out))
    command = [str(peer / "bin" / "nnUNetv2_predict_from_modelfolder"), "-i", str(source), "-o", str(out), "-m", folder]
    folds = sorted(x.parent.name.removeprefix("fold_") for x in Path(folder).glob("fold_*/checkpoint_final.pth"))
    command += ["-f", *folds, "-device", "cpu", "-npp", "1", "-nps", "1"]
    return measured(command if mirror else [*command, "--disable_tta"], env)


def own_run(model: Path, scan: Path, out: Path, **wishes: Any) -> dict[str, Any]:
    """hilum on one scan, as a process of its own: read, prepare, predict, write."""
    out.parent.mkdir(parents=True, exist_ok=True)
    said = {"model": str(model), "scan": str(scan), "out": str(out), **wishes}
    return measured([sys.executable, "-c", OWN, json.dumps(said)])


def agreement(truth: Path, prediction: Path) -> dict[str, Any]:
    """Share of equal voxels, Dice of each label that either has."""
    import nibabel

    a, b = (np.asarray(nibabel.load(file).dataobj).astype(np.uint8) for file in (truth, prediction))
    assert a.shape == b.shape, (a.shape, b.shape)
    dice = {}
    for value in np.union1d(np.unique(a), np.unique(b)):
        if value:
            of_a, of_b = a == value, b == value
            dice[int(value)] = {
                "dice": 2 * int((of_a & of_b).sum()) / int(of_a.sum() + of_b.sum()),
                "voxels": int(of_a.sum()),
            }
    return {"equal": float((a == b).mean()), "differ": int((a != b).sum()), "labels": dice}


def side_by_side(options: argparse.Namespace, models: dict[str, tuple[str, Path]], aside: Path) -> list[dict[str, Any]]:
    """Every model on every scan."""
    known = {"whole": ("fp32", False), "whole bf16": ("bf16", False), "region first": ("fp32", True)}
    ways = {way: known[way] for way in options.ways}
    rows = []
    for name, (folder, model) in models.items():
        for number, scan in enumerate(options.scans):
            for mirror in {"no": (False,), "yes": (True,), "both": (False, True)}[options.mirror]:
                row: dict[str, Any] = {"model": name, "scan": scan.name, "mirror": mirror, "nnunet": [], "hilum": {}}
                row["load"] = [os.getloadavg()[0]]
                peer_out = aside / f"{name}_{number}_{mirror}"
                for _ in range(options.rounds):
                    row["nnunet"].append(peer_run(options.peer, folder, scan, peer_out, mirror))
                    for way, (precision, region) in ways.items():
                        out = aside / "own" / f"{name}_{number}_{mirror}_{way.replace(' ', '_')}.nii.gz"
                        made = own_run(model, scan, out, mirror=mirror, precision=precision, region=region)
                        row["hilum"].setdefault(way, []).append(made)
                truth = peer_out / "case.nii.gz"
                row["agreement"] = {
                    way: agreement(truth, aside / "own" / f"{name}_{number}_{mirror}_{way.replace(' ', '_')}.nii.gz")
                    for way in ways
                }
                seconds = statistics.median(x["wall_s"] for x in row["nnunet"])
                row["times_faster"] = {
                    way: seconds / statistics.median(x["wall_s"] for x in row["hilum"][way]) for way in ways
                }
                spent = statistics.median(x["cpu_s"] for x in row["nnunet"])
                row["times_fewer_cpu_seconds"] = {
                    way: spent / statistics.median(x["cpu_s"] for x in row["hilum"][way]) for way in ways
                }
                peak = max(x["peak_mb"] for x in row["nnunet"])
                row["share_of_memory"] = {way: max(x["peak_mb"] for x in row["hilum"][way]) / peak for way in ways}
                row["load"].append(os.getloadavg()[0])
                print(json.dumps({key: row[key] for key in row if key not in ("nnunet", "hilum")}), flush=True)
                rows.append(row)
    return rows


def parts(options: argparse.Namespace, folder: str, model: Path) -> dict[str, Any]:
    """The steps alone, alternating: after the network, preparing, start to first patch."""
    out = [40, 96, 96] if options.quick else [300, 512, 512]
    spacing = json.loads((model / "model.json").read_text())["plan"]["spacing_mm"]
    shape = [max(1, round(n * s / t)) for n, s, t in zip(out, (1.0, 0.8, 0.8), spacing, strict=True)]
    peer, own = str(options.peer / "bin" / "python"), sys.executable
    scan = str(options.scans[0])
    start = json.dumps(
        {"model": str(model), "scan": scan, "mirror": False, "precision": "auto", "region": False, "start": 1}
    )
    both = {
        "after the network": (
            [peer, "-c", PEER_EXPORT, folder, str(shape), str(out)],
            [own, "-c", OWN_EXPORT, str(shape), str(out)],
        ),
        "preparing": ([peer, "-c", PEER_PREPARE, folder, str(out)], [own, "-c", OWN_PREPARE, str(model), str(out)]),
        "start to first patch": ([peer, "-c", PEER_START, folder, scan], [own, "-c", OWN, start]),
    }  # fmt: skip
    found: dict[str, Any] = {"shape": out, "prepared": shape}
    env = os.environ | dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/tmp")
    for name, (theirs, ours) in both.items():
        found[name] = {"nnunet": [], "hilum": []}
        for _ in range(options.rounds):
            found[name]["nnunet"].append(measured(theirs, env))
            found[name]["hilum"].append(measured(ours))
        print(json.dumps({name: found[name]}), flush=True)
    return found


def against_slices(options: argparse.Namespace, model: Path, aside: Path) -> list[dict[str, Any]]:
    """hilum whole on longer and longer scans: one block of body, repeated."""
    from hilum.scans import read_scan, write_scan
    from hilum.volume import Volume

    rows = []
    scan = read_scan(options.scans[0])
    inside = scan.oriented("SPL")
    for count in (30, 60) if options.quick else (60, 120, 300, 600, 1059):
        image = np.resize(np.asarray(inside.array, np.int16), (count, *inside.shape[1:]))
        file = aside / f"slices_{count}.nii.gz"
        write_scan(file, Volume(image, inside.affine).oriented(scan.codes))
        made = own_run(model, file, aside / "own" / "slices.nii.gz", mirror=False, precision="auto", region=False)
        rows.append({"slices": count, "in_plane": list(inside.shape[1:]), **made})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """The whole comparison."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--peer", type=Path, required=True, help="environment with nnunetv2")
    words.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER", help="a trainer's folder")
    words.add_argument("--scan", dest="scans", action="append", type=Path, required=True)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--quick", action="store_true")
    words.add_argument("--agreement-only", action="store_true", help="leave out the steps alone and the slices")
    words.add_argument(
        "--steps-only", action="store_true", help="leave out the comparison of whole scans and the slices"
    )
    words.add_argument("--no-slices", action="store_true", help="leave out the longer and longer scans")
    words.add_argument(
        "--mirror", default="both", choices=["no", "yes", "both"], help="with or without mirrored copies"
    )
    words.add_argument("--ways", nargs="+", default=["whole", "whole bf16"], help="of hilum; also: region first")
    words.add_argument("--name", default="", help="for the file that --keep writes, where there are several a day")
    words.add_argument("--keep", action="store_true")
    options = words.parse_args()
    if options.quick:
        options.rounds, options.mirror = 1, "no"
    from hilum.exchange import import_model
    from hilum.scans import read_scan, write_scan

    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder)
        models = {}
        for text in options.model:
            name, _, source = text.partition("=")
            models[name] = (source, import_model(source, aside / "models" / name).folder)
        for place, scan in enumerate(options.scans):
            if not scan.name.endswith(".nii.gz"):
                options.scans[place] = aside / f"{scan.name}.nii.gz"
                write_scan(options.scans[place], read_scan(scan))
        found: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "load_at_start": os.getloadavg()[0],
            "command": " ".join(sys.argv),
        }
        first = next(iter(models.values()))
        if not options.steps_only:
            found["side_by_side"] = side_by_side(options, models, aside)
        if not options.agreement_only:
            found["steps"] = parts(options, *first)
        if not (options.agreement_only or options.steps_only or options.no_slices):
            found["slices"] = against_slices(options, first[1], aside)
        found["load_at_end"] = os.getloadavg()[0]
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        name = "_".join(part for part in (found["date"], "inference_vs_nnunet", options.name) if part)
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
