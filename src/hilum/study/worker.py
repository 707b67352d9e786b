"""ONE RUN IN A PROCESS OF ITS OWN: ``python -m hilum.study.worker FOLDER/job.json``.

Comes in: what ``jobs`` describes. Goes out: the run's folder, ``result.json`` in it. A process of its own gives each
run its own memory: its peak is the system's account of this process (VmHWM on Linux), told once when training ends and
once at the end; no other run and no comparison is in it. Cases were prepared before, so that no run pays for others.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from hilum import __version__
from hilum.config import Recipe, recipe_from, to_table
from hilum.errors import HilumError
from hilum.files import plain, read_json, write_json
from hilum.progress import Progress

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Phases(Progress):
    """Progress that also notes how much memory the process had taken before each stage."""

    def __init__(
        self, title: str = "", total: int = 0, stream: TextIO | None = None, peaks: dict[str, Any] | None = None
    ):
        super().__init__(title, total, stream)
        self.peaks = {} if peaks is None else peaks

    def stage(self, title: str, total: int = 0) -> Progress:
        """A new count; the peak until its last beginning is noted under its title."""
        self.peaks[title] = peak_gb()
        return Phases(title, total, self.stream, self.peaks)


def main(words: list[str]) -> int:
    """Do the job of a ``job.json`` and leave ``result.json`` beside it."""
    file = Path(words[0])
    job = read_json(file)
    folder = file.parent
    _reset_peak()
    result: dict[str, Any] = {"format": job["format"], "key": job["key"], "recipe": job["recipe"], "fold": job["fold"]}
    begin = time.monotonic()
    try:
        _pin(job["cores"])
        found = _prepare(job, folder) if job["kind"] == "prepare" else _run(job, folder)
        result |= {"status": "done", **found}
    except HilumError as error:
        result |= {"status": "failed", "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        result |= {"status": "failed", "error": f"a fault in hilum itself ({type(error).__name__}: {error})"}
    result["wall_seconds"] = round(time.monotonic() - begin, 2)
    write_json(folder / "result.json", plain(result))
    return 0 if result["status"] == "done" else 1


def peak_gb() -> float | None:
    """GiB of resident memory at this process's highest; its own account, which nothing of the parent's is in."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return kib / 2**20
    except (OSError, StopIteration):
        from hilum.device import choose, peak_memory_gb

        return peak_memory_gb(choose("cpu"))


def _prepare(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fingerprint, plan, folds and prepared cases for all runs that share them."""
    from hilum.survey.selecting import open_chosen
    from hilum.training.setup import set_up

    recipe = recipe_from(job["recipe"], str(folder))
    progress = Progress(stream=sys.stderr)
    dataset = open_chosen(recipe, folder, progress)
    setup = set_up(recipe, dataset, folder, job["fold"], None, progress)
    cases = len(setup.training) + len(setup.held_out)
    return {"cases": cases, "patch": list(setup.plan.patch), "batch": setup.plan.batch}


def _run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from hilum import device as devices
    from hilum.runs import commit, train_and_validate

    recipe = recipe_from(job["recipe"], str(folder))
    _adopt(Path(job["prepared"]), folder, recipe)
    devices.use_threads()
    where = devices.choose(job["device"])
    phases = Phases(stream=sys.stderr)
    before = peak_gb()
    answer = train_and_validate(recipe, folder, fold=str(job["fold"]), device=job["device"], progress=phases)
    return {
        "held_out": answer["held_out"],
        "failed_cases": answer["failed"],
        "mean": answer["mean"],
        "train_seconds": answer["seconds"],
        "start_memory_gb": before,
        "train_memory_gb": phases.peaks.get("Predicting cases"),
        "peak_memory_gb": peak_gb(),
        "gpu_memory_gb": devices.peak_memory_gb(where) if where.type == "cuda" else None,
        "device": devices.describe(where),
        "threads": devices.use_threads(),
        "hilum": __version__,
        "commit": commit(),
    }


def _adopt(prepared: Path, folder: Path, recipe: Recipe) -> None:
    """Take fingerprint, plan and cases from where they were prepared for all; a run that has its own keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, facts = (prepared / name for name in ("plan.json", "fingerprint.json"))
    if plan.is_file() and facts.is_file() and not (folder / plan.name).exists():
        found = read_json(facts)
        if recipe.prepare.patch:  # otherwise the plan depends on the network, and each run makes its own
            if "network" in found["asked"]:
                found["asked"]["network"] = to_table(recipe)["network"]
            write_json(folder / plan.name, read_json(plan))
        write_json(folder / facts.name, found)
    link = folder / "prepared"
    if (prepared / "prepared").is_dir() and not link.exists():
        link.symlink_to(os.path.relpath(prepared / "prepared", folder), target_is_directory=True)


def _pin(cores: list[int]) -> None:
    """Keep to some processors, so that runs at the same time do not fight for them."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _reset_peak() -> None:
    """Forget the peak so far: until a new program stood, the process was a copy of its parent."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")  # proc(5): resets VmHWM to the present size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
