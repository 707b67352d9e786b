"""What augmenting one patch costs, beside batchgeneratorsv2 with the settings of nnU-Net v2's default trainer.

    python benchmarks/augmentation.py [--size 96 128] [--patches 60] [--threads 1] [--device cpu] [--presets default]

Every patch is drawn anew and all of them are timed: the mean is what a training step pays, the median what most steps
pay. The preset "default" has the peer's operations at the probabilities at which a CT patch meets them there (the peer
draws blur and low resolution twice as often and then spares a channel with probability one half); other presets are
other work. hilum's time holds the conversion from int16, the normalisation and the enlarged box where the drawn turn
needs it. The peer starts from a float32 box, already normalised, as large as its own loader cuts. Both have as many
threads of torch's as asked for; both draw anew for each patch, so over few patches the means carry the draws' luck.
The two alternate, patch by patch, so that other load on the machine falls on both. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from hilum.patches.augment import PRESETS, AugmentSettings, apply_item, draw_item, source_box
from hilum.prepare.plan import Normalisation

DEGREES = np.pi / 180


def hilum_patch(settings: AugmentSettings, size: int, device: torch.device) -> Callable[[int], None]:
    """One hilum patch, from int16 HU in memory to float32 on the device; the argument seeds the draw."""
    rng = np.random.default_rng(0)
    # no turn (sqrt 3), shrinking (0.7) and bending (15 voxels) together reach further than three times the patch
    edge = 3 * size
    normalise = Normalisation("ct", -80.0, 300.0, 100.0, 75.0).apply
    volume = torch.from_numpy(rng.integers(-1000, 400, (edge,) * 3, dtype=np.int16))
    labels = torch.from_numpy(rng.integers(0, 4, volume.shape, dtype=np.uint8))

    def run(seed: int) -> None:
        item = draw_item(settings, 3, np.random.default_rng(seed))
        shape = source_box(item, (size, size, size))
        box = tuple(slice((edge - s) // 2, (edge - s) // 2 + s) for s in shape)
        image = volume[box].contiguous().to(device).float()
        apply_item(item, image[None], labels[box].contiguous().to(device), (size, size, size), normalise)

    return run


def peer_patch(size: int) -> Callable[[int], None]:
    """One patch through batchgeneratorsv2's transforms with nnU-Net v2's default arguments for even spacing."""
    pipeline = _peer_pipeline(size)
    # nnU-Net's compute_initial_patch_size for +-30 degrees and scale 0.7..1.4 on a cube
    large = round(size * 1.43 * (np.cos(30 * DEGREES) + np.sin(30 * DEGREES)))
    rng = np.random.default_rng(0)
    volume = torch.from_numpy(rng.normal(size=(1, large, large, large)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 4, volume.shape, dtype=np.int16))
    start = (large - size) // 2
    middle = (slice(None), *(slice(start, start + size),) * 3)
    original = volume[middle].clone()

    def run(seed: int) -> None:
        np.random.seed(seed)
        torch.manual_seed(seed)
        volume[middle] = original  # the transforms write in place where they only crop
        pipeline(image=volume, segmentation=labels)

    return run


def _peer_pipeline(size: int) -> Any:
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    one = {"synchronize_channels": False, "p_per_channel": 1}
    power = {**one, "gamma": BGContrast((0.7, 1.5)), "p_retain_stats": 1}
    return ComposeTransforms(
        [
            SpatialTransform(
                (size,) * 3, patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0, p_rotation=0.2,
                rotation=(-30 * DEGREES, 30 * DEGREES), p_scaling=0.2, scaling=(0.7, 1.4),
                p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
            ),
            RandomTransform(
                GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1
            ),
            RandomTransform(
                GaussianBlurTransform(
                    blur_sigma=(0.5, 1.0), synchronize_channels=False, synchronize_axes=False, p_per_channel=0.5,
                    benchmark=True,
                ),
                0.2,
            ),
            RandomTransform(MultiplicativeBrightnessTransform(multiplier_range=BGContrast((0.75, 1.25)), **one), 0.15),
            RandomTransform(
                ContrastTransform(contrast_range=BGContrast((0.75, 1.25)), preserve_range=True, **one), 0.15
            ),
            RandomTransform(
                SimulateLowResolutionTransform(
                    scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True, ignore_axes=None,
                    allowed_channels=None, p_per_channel=0.5,
                ),
                0.25,
            ),
            RandomTransform(GammaTransform(p_invert_image=1, **power), 0.1),
            RandomTransform(GammaTransform(p_invert_image=0, **power), 0.3),
            MirrorTransform(allowed_axes=(0, 1, 2)),
        ]
    )  # fmt: skip


def timed(runs: dict[str, Callable[[int], None]], patches: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds a patch; all are warmed up, then take turns.

    Returns:
        For each run mean, its standard error, median and largest by the clock, and the mean of processor time, which
        other load on the machine hardly changes if there is one thread.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    for seed in range(-3, patches):
        for name, run in runs.items():
            start, before = time.perf_counter(), time.process_time()
            run(seed + 1_000)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if seed >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
                spent[name] += (time.process_time() - before) * 1e3
    return {
        name: {
            "mean_ms": statistics.fmean(t),
            "error_ms": statistics.stdev(t) / len(t) ** 0.5,
            "median_ms": statistics.median(t),
            "max_ms": max(t),
            "cpu_ms": spent[name] / len(t),
        }
        for name, t in times.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["default"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    warnings.filterwarnings("ignore")  # the peer's
    result: dict[str, Any] = {
        "benchmark": "augmentation", "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
        "threads": options.threads, "device": options.device, "patches": options.patches,
        "load_before": os.getloadavg()[0], "peer": None, "sizes": {},
    }  # fmt: skip
    for size in options.size:
        runs = {f"hilum {name}": hilum_patch(PRESETS[name], size, device) for name in options.presets}
        try:
            runs["batchgeneratorsv2"] = peer_patch(size)
            result["peer"] = f"batchgeneratorsv2 {version('batchgeneratorsv2')}"
        except ImportError as error:
            print(f"batchgeneratorsv2 is absent ({error}): hilum alone")
        result["sizes"][size] = found = timed(runs, options.patches, device)
        for name, times in found.items():
            peer = found.get("batchgeneratorsv2", times)
            clock, work = (peer[key] / times[key] for key in ("mean_ms", "cpu_ms"))
            ratio = f"  peer takes {clock:.1f} times the time, {work:.1f} times the work"
            told = "".join(f"  {key[:-3]} {ms:7.1f} ms" for key, ms in times.items())
            print(f"{size}^3  {name:20}" + told + (ratio if name != "batchgeneratorsv2" and result["peer"] else ""))
    # above the number of cores, the times are too long; their ratios hold better
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
