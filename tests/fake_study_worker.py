"""Stands in for ``hilum.study.worker`` where scheduling is tested: ends at once, its score decided by the recipe."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main(file: Path) -> int:
    job = json.loads(file.read_text())
    folder, recipe = file.parent, job["recipe"]
    with open(folder / "begun.txt", "a") as log:
        log.write("begun\n")
    told = {key: job[key] for key in ("format", "key", "recipe", "fold")}
    if recipe["description"] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if recipe["description"] == "slow":
        time.sleep(60)
    if recipe["description"] == "fails" and job["kind"] == "run":
        told |= {"status": "failed", "error": "no such luck"}
    else:
        rate = recipe["training"]["learning_rate"]
        value = 1 - 0.1 * abs(math.log10(rate) + 3) + 0.01 * job["fold"]
        mean = {"kidney_and_mass": {"dice": {"value": value}}, "mass": {"dice": {"value": value / 2}}}
        told |= {"status": "done", "held_out": [], "failed_cases": {}, "mean": mean, "train_seconds": 1.0 + job["fold"]}
        told |= {"train_memory_gb": 0.5, "peak_memory_gb": 0.6, "start_memory_gb": 0.3, "gpu_memory_gb": None}
    told["wall_seconds"] = 0.1
    (folder / "result.json").write_text(json.dumps(told))
    return 0 if told["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
