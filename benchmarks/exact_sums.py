"""Whose rounding is it? Agreement with nnU-Net v2 as it is, and with its sums kept in fp32.

    python benchmarks/exact_sums.py --peer PEER --model plain=FOLDER [--model resenc=FOLDER ...] --scan ct.nii.gz \\
        [--scan DICOM_FOLDER ...] [--keep]

nnU-Net adds tiles up in half precision and rounds the resampled logits to it. PEER (an environment with nnunetv2) runs
its own predictor on a scan once, on the CPU without mirrored copies; from the same tiles it makes the labels twice:
as it is, and with ``torch.half`` in its predictor's sums replaced by ``torch.float32``, so that its export keeps fp32
too. hilum segments the scan whole, in fp32 and bf16. Goes out: for each pair differing voxels and Dice of each label.

The last line is JSON; ``--keep`` writes it to benchmarks/results too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from inference_vs_nnunet import RESULTS, agreement, measured, own_run

PEER = """
import inspect, json, sys, textwrap, torch
import nnunetv2.inference.predict_from_raw_data as module
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as convert
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
folder, scan, outs = sys.argv[1], sys.argv[2], sys.argv[3:]
p = module.nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
p.initialize_from_trained_model_folder(folder, None)
data, _, facts = DefaultPreprocessor(verbose=False).run_case(
    [scan], None, p.plans_manager, p.configuration_manager, p.dataset_json)
p.network.load_state_dict(p.list_of_parameters[0])
assert len(p.list_of_parameters) == 1, "one fold"
tiles, real = [], p._internal_maybe_mirror_and_predict
def first(x):
    tiles.append(real(x).clone())
    return tiles[-1].clone()
source = textwrap.dedent(inspect.getsource(p._internal_predict_sliding_window_return_logits))
assert source.count("torch.half") == 2, "another nnU-Net than the one this was written for"
names = dict(vars(module))
exec(source.replace("torch.half", "torch.float32"), names)
exact = names["_internal_predict_sliding_window_return_logits"]
for out, patched in zip(outs, (False, True)):
    again = iter(tiles)
    p._internal_maybe_mirror_and_predict = (lambda x: next(again).clone()) if patched else first
    if patched:
        p._internal_predict_sliding_window_return_logits = lambda *a, **k: exact(p, *a, **k)
    logits = p.predict_sliding_window_return_logits(torch.from_numpy(data))
    labels = convert(logits, p.plans_manager, p.configuration_manager, p.label_manager, facts)
    p.plans_manager.image_reader_writer_class().write_seg(labels, out, facts)
print(json.dumps({"threads": torch.get_num_threads()}))
"""


def compared(peer: Path, folder: str, model: Path, scan: Path, aside: Path) -> dict[str, Any]:
    """One model on one scan: ``{"fp32": {"half": ..., "exact": ...}, "bf16": ..., "cpu_s": ...}``."""
    aside.mkdir(parents=True)
    theirs = {kind: aside / f"{kind}.nii.gz" for kind in ("half", "exact")}
    env = os.environ | dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(aside))
    measured([str(peer / "bin" / "python"), "-c", PEER, folder, str(scan), *map(str, theirs.values())], env)
    found: dict[str, Any] = {"cpu_s": {}}
    for precision in ("fp32", "bf16"):
        own = aside / f"{precision}.nii.gz"
        found["cpu_s"][precision] = own_run(model, scan, own, mirror=False, precision=precision, region=False)["cpu_s"]
        found[precision] = {kind: agreement(file, own) for kind, file in theirs.items()}
    return found


def main() -> int:
    """Every model on every scan."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--peer", type=Path, required=True, help="environment with nnunetv2")
    words.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER", help="a trainer's folder")
    words.add_argument("--scan", dest="scans", action="append", type=Path, required=True)
    words.add_argument("--keep", action="store_true")
    options = words.parse_args()
    from hilum.exchange import import_model
    from hilum.scans import read_scan, write_scan

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder)
        for text in options.model:
            name, _, source = text.partition("=")
            model = import_model(source, aside / "models" / name).folder
            for number, scan in enumerate(options.scans):
                file = scan
                if not scan.name.endswith(".nii.gz"):
                    file = aside / f"{scan.name}.nii.gz"
                    write_scan(file, read_scan(scan))
                row = compared(options.peer, source, model, file, aside / f"{name}_{number}")
                rows.append({"model": name, "scan": scan.name, **row})
                print(json.dumps(rows[-1]), flush=True)
    found = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv), "rows": rows}
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{found['date']}_exact_sums.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
