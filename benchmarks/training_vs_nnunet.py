"""Training beside nnU-Net: the same networks, patches, batches and cases, both sides taking turns.

    python benchmarks/training_data.py KITS23_LABELS DATA            # painted cases around real kidney shapes
    python benchmarks/training_vs_nnunet.py prepare  --peer PEER --data DATA --work WORK [--device cuda]
    python benchmarks/training_vs_nnunet.py speed    --peer PEER --data DATA --work WORK [--device cuda] [--keep]
    python benchmarks/training_vs_nnunet.py train    --peer PEER --data DATA --work WORK --cpu-seconds 900
    python benchmarks/training_vs_nnunet.py judge    --peer PEER --data DATA --work WORK --cpu-seconds 900 [--keep]
    python benchmarks/training_vs_nnunet.py train    --data SMALL --work WORK2 --cpu-seconds 600 --sides class,lesion
    python benchmarks/training_vs_nnunet.py lesions  --data SMALL --work WORK2 [--keep]

PEER is an environment with nnunetv2 from PyPI (``PEER/bin/python``; nothing of hilum's is needed there). ``prepare``
plans with hilum, gives nnU-Net plans of the same network, patch, batch and spacing, and lets each prepare the cases in
its own way.

``speed``: both trainers stay in memory, stopped (SIGSTOP) while it is not their turn, and take blocks of steps in turn:
nnU-Net as it comes (fp32 on a CPU with two workers that load and augment, fp16 and ``torch.compile`` on a GPU) and with
its augmentation and loading off; hilum in fp32 and in the precision that it chooses by itself, each also with
augmentation and loading off. A first round warms up and is not counted. ``wait`` is the share of a step's time from
asking for a batch to having it: for hilum that is waiting for cut boxes and augmenting them on the training device.
Utilisation is the step's convolutions and matrix products (``torch.utils.flop_counter``) over the seconds, as a share
of the largest matrix product's speed found in the same run. Processor seconds, of the workers too, say more than the
clock where other programs hold the machine.

``train``, ``judge``, ``lesions``: accuracy at equal budget, see ``training_accuracy.py``. The last line is JSON;
``--keep`` writes it to benchmarks/results too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from processor import seconds_of_group

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SPACING = [3.0, 3.0, 3.0]
# name: recipe, what is set in it, steps of a block
CPU = {
    "plain": ("default", {"patch": [48, 96, 96], "batch": 2}, 1),
    "small": ("default", {"patch": [48, 48, 48], "batch": 2, "base_features": 16}, 20),
    "tiny": ("default", {"patch": [32, 32, 32], "batch": 2, "base_features": 16}, 40),
    "resenc_m": ("resenc_m", {"patch": [48, 96, 96], "batch": 2}, 1),
}
GPU = {
    "plain": ("default", {"patch": [128, 128, 128], "batch": 2}, 40),
    "resenc_l": ("resenc_l", {"patch": [128, 128, 128], "batch": 2}, 40),
}
# side, precision (hilum's), whether augmentation and loading are off
TURNS = {
    "nnunet": ("nnunet", "", False),
    "nnunet, loading off": ("nnunet", "", True),
    "hilum fp32": ("hilum", "fp32", False),
    "hilum fp32, loading off": ("hilum", "fp32", True),
    "hilum": ("hilum", "auto", False),
    "hilum, loading off": ("hilum", "auto", True),
}


def configurations(device: str) -> dict[str, tuple[str, dict[str, Any], int]]:
    """What is measured on this kind of device."""
    return CPU if device == "cpu" else GPU


def recipe_of(options: argparse.Namespace, name: str, more: dict[str, Any] | None = None) -> Any:
    """hilum's recipe of a configuration, with its defaults except for what both sides must share."""
    from hilum.config import read_recipe

    base, wishes, _ = configurations(options.device)[name]
    said = {f"prepare.{key}": value for key, value in wishes.items()} | {
        "prepare.spacing_mm": SPACING,
        "data.dataset": '"folder"',
        "data.path": json.dumps(str(options.data / "painted")),
        "data.folds_file": json.dumps(str(options.data / "folds.json")),
        "labels": '"kits"',
        **(more or {}),
    }
    return read_recipe(base, [f"{key}={value}" for key, value in said.items()])


def set_up_run(recipe: Any, out: Path) -> Any:
    """hilum's folds, plan and prepared cases of a recipe."""
    from hilum.datasets import open_dataset
    from hilum.progress import Progress
    from hilum.training.setup import set_up

    dataset = open_dataset(recipe.data.dataset, Path(recipe.data.path))
    return set_up(recipe, dataset, out, 0, 2, Progress(stream=sys.stderr))


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Plans of both sides, cases prepared by each in its own way; seconds of each."""
    plans = options.work / "plans"
    plans.mkdir(parents=True, exist_ok=True)
    files, seconds = [], {}
    for name in options.only or configurations(options.device):
        recipe, begin = recipe_of(options, name), time.perf_counter()
        setup = set_up_run(recipe, options.work / "hilum" / name)
        seconds[f"hilum {name}"] = time.perf_counter() - begin
        plan = setup.plan
        table = {key: getattr(plan, key) for key in ("features", "kernels", "strides", "patch", "batch", "spacing_mm")}
        files.append(plans / f"{name}.json")
        files[-1].write_text(json.dumps(table | {"network": setup.spec.name}))
    done = subprocess.run(
        [*peer_command(options, "prepare"), str(options.data / "painted"), str(options.data / "folds.json"), *files],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {"hilum_s": seconds, "nnunet": json.loads(done.stdout.splitlines()[-1])}


def peer_command(options: argparse.Namespace, order: str) -> list[str]:
    """The start of a command for nnU-Net's side."""
    return [str(options.peer / "bin" / "python"), str(HERE / "training_peer.py"), order, str(options.work)]


class Side:
    """A trainer in a process of its own that takes steps on demand and stands still otherwise."""

    def __init__(self, command: list[str]):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        self.facts = self._answer()
        self._signal(signal.SIGSTOP)

    def take(self, order: dict[str, Any]) -> dict[str, Any]:
        """Steps; what the process answers."""
        assert self.process.stdin is not None
        before = seconds_of_group(self.process.pid)
        self._signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer | {"processor_s": seconds_of_group(self.process.pid) - before}

    def close(self) -> None:
        """End it, and the workers that it started."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"{self.process.args} ended early")

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


def take_orders(options: argparse.Namespace, name: str) -> None:
    """hilum's side: ``{"steps": n, "precision": "fp32", "off": false}`` a line; a trainer for each precision."""
    import torch

    from hilum import device as devices
    from hilum.patches.batches import Batches
    from hilum.training.trainer import Trainer

    device = devices.choose(options.device)
    devices.use_threads()
    recipes = {precision: recipe_of(options, name, {"training.precision": precision}) for precision in ("fp32", "auto")}
    setup = set_up_run(recipes["fp32"], options.work / "hilum" / name)
    trainers = {precision: Trainer(setup, recipe, device) for precision, recipe in recipes.items()}
    common = (setup.plan, recipes["fp32"].patches, setup.scheme, device, 0)
    batches = Batches(setup.store, setup.training, *common)
    kept, step = batches.batch(0), 1
    if options.device != "cpu":
        for trainer in trainers.values():
            trainer.compile()
    synchronise: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    network = trainers["fp32"].network
    facts = {"parameters": sum(p.numel() for p in network.parameters()), "flops": flops(trainers["fp32"], kept)}
    print(json.dumps(facts | {"peak": peak_flops(device), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        trainer, losses, asked_s, before = trainers[order["precision"]], [], 0.0, batches.wait_seconds
        synchronise()
        begin = time.perf_counter()
        for _ in range(order["steps"]):
            asked = time.perf_counter()
            batch = kept if order["off"] else batches.batch(step)
            asked_s += time.perf_counter() - asked
            losses.append(trainer.learn([batch], 0.0))
            step += 1
        synchronise()
        answer = {"seconds": time.perf_counter() - begin, "wait_s": asked_s, "losses": losses}
        print(json.dumps(answer | {"boxes_s": batches.wait_seconds - before}), flush=True)


def flops(trainer: Any, batch: Any) -> int:
    """Floating-point operations of one step's convolutions and products, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trainer.learn([batch], 0.0)
    return int(counter.get_total_flops())


def peak_flops(device: Any) -> dict[str, float]:
    """Operations a second of large matrix products, the best of several, by type."""
    import torch

    edge, found = 8192 if device.type == "cuda" else 2048, {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn((edge, edge), device=device).to(dtype) for _ in range(2))
        best = float("inf")
        for _ in range(8):
            begin = time.perf_counter()
            a @ b
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
        found[name] = 2 * edge**3 / best
    return found


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Steps a second of all sides, in turn."""
    rows = {}
    for name, (_, _, steps) in configurations(options.device).items():
        if options.only and name not in options.only:
            continue
        own = [sys.executable, __file__, "orders", "--data", str(options.data), "--work", str(options.work)]
        with ExitStack() as stack:
            sides = {}
            for side, command in (
                ("nnunet", [*peer_command(options, "steps"), name, options.device]),
                ("hilum", [*own, "--device", options.device, "--only", name]),
            ):
                sides[side] = Side(command)
                stack.callback(sides[side].close)
            facts = {side: sides[side].facts for side in sides}
            assert facts["nnunet"]["parameters"] == facts["hilum"]["parameters"], "the networks differ"
            blocks: dict[str, list[dict[str, Any]]] = {turn: [] for turn in TURNS}
            load = [os.getloadavg()[0]]
            begin = time.monotonic()
            for number in range(options.rounds + 1):
                if number > 2 and time.monotonic() - begin > options.limit:
                    break
                count = steps if number else max(1, steps // 5)
                for turn, (side, precision, off) in TURNS.items():
                    made = sides[side].take({"steps": count, "precision": precision, "off": off})
                    if number:
                        blocks[turn].append(made | {"steps": count})
                load.append(os.getloadavg()[0])
            rows[name] = summary(blocks, facts["hilum"]) | {"blocks": blocks, "load": load, "facts": facts}
            print(json.dumps({name: {k: v for k, v in rows[name].items() if k != "blocks"}}), flush=True)
    return rows


def summary(blocks: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> dict[str, Any]:
    """Steps a second (median block), shares of waiting, ratios block by block."""
    rows: dict[str, Any] = {}
    for turn, made in blocks.items():
        rates = [b["steps"] / b["seconds"] for b in made]
        kind = "bf16" if turn.startswith("hilum") and "fp32" not in turn else "fp32"
        rows[turn] = {
            "steps_per_s": statistics.median(rates),
            "slowest_fastest": [min(rates), max(rates)],
            "wait": sum(b["wait_s"] for b in made) / sum(b["seconds"] for b in made),
            "processor_s_a_step": statistics.median(b["processor_s"] / b["steps"] for b in made),
            "utilisation": statistics.median(rates) * facts["flops"] / facts["peak"][kind],
        }
        if "boxes_s" in made[0]:
            rows[turn]["wait_for_boxes"] = sum(b["boxes_s"] for b in made) / sum(b["seconds"] for b in made)
    ratios = {}
    for turn in ("hilum fp32", "hilum"):
        pairs = zip(blocks["nnunet"], blocks[turn], strict=True)
        each = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]
        spent = [rows[side]["processor_s_a_step"] for side in ("nnunet", turn)]
        ratios[turn] = {"median": statistics.median(each), "each": each, "processor_s": spent[0] / spent[1]}
        off = rows[f"{turn}, loading off"]["steps_per_s"]
        rows[turn]["share_of_speed_without_loading"] = rows[turn]["steps_per_s"] / off
    return {"turns": rows, "times_nnunet": ratios}


def kept(options: argparse.Namespace, kind: str, found: dict[str, Any]) -> None:
    """Print the answer; with ``--keep`` write it too."""
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        name = "_".join(part for part in (found["date"], "training_vs_nnunet", kind, options.name) if part)
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def main() -> int:
    """One of the orders."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("order", choices=["prepare", "speed", "train", "judge", "lesions", "orders"])
    words.add_argument("--peer", type=Path, help="environment with nnunetv2")
    words.add_argument("--data", type=Path, required=True, help="what training_data.py made")
    words.add_argument("--work", type=Path, required=True, help="where plans, prepared cases and runs go")
    words.add_argument("--device", default="cpu", help="cpu or cuda")
    words.add_argument("--only", action="append", help="a configuration; several times")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--limit", type=float, default=600.0, help="seconds after which no round begins")
    words.add_argument("--seconds", type=float, default=600.0, help="budget of each training")
    words.add_argument("--cpu-seconds", type=float, default=0.0, help="budget in processor seconds instead")
    words.add_argument("--sides", default="hilum,nnunet", help="whom to train")
    words.add_argument("--mirror", action="store_true", help="judge with mirrored copies too")
    words.add_argument("--imported", action="store_true", help="let hilum use nnU-Net's weights to judge them: quicker")
    words.add_argument("--overlap", type=float, default=0.5, help="of tiles, where hilum's inference judges")
    words.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in hilum's recipe")
    words.add_argument("--name", default="", help="of a run, and for the file that --keep writes")
    words.add_argument("--keep", action="store_true")
    options = words.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the sides, which stand still, are ended too
    if options.order == "orders":
        take_orders(options, options.only[0])
        return 0
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": options.device,
        "load_at_start": os.getloadavg()[0],
        "command": " ".join(sys.argv),
    }
    if options.order == "prepare":
        found["prepare"] = prepare(options)
    elif options.order == "speed":
        found["speed"] = speed(options)
    else:
        sys.modules["training_vs_nnunet"] = sys.modules["__main__"]  # one module, not two
        import training_accuracy

        found[options.order] = getattr(training_accuracy, options.order)(options)
    found["load_at_end"] = os.getloadavg()[0]
    kept(options, options.order, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
