"""Compiles the engine's C when hilum is installed, where there is a C compiler; without one hilum is slower, not less.

Runs within pip, of wheels and of editable installations alike. One library for each kind of processor is laid beside
native.c: hilum/inference/winograd/native.py takes the one that fits. ``HILUM_PURE=1`` leaves the compiler alone.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FOLDER = Path("src/hilum/inference/winograd")
FLAGS = ("-O3", "-shared", "-fPIC", "-Wno-psabi")
VARIANTS = {
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
    "plain": (),
}


class Native(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel's files are gathered."""
        made = [] if os.environ.get("HILUM_PURE") else compiled(Path(self.root) / FOLDER)
        if not made:
            self.app.display_warning("hilum: compiled without C, so networks run on PyTorch alone: about half as fast")
            return
        build_data["artifacts"] += [f"{FOLDER}/{name}" for name in made]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(platform_tags())}"


def compiled(folder: Path) -> list[str]:
    """Compile native.c in this folder; the names of the libraries made."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.name == "nt":
        return []
    names = VARIANTS if platform.machine() in ("x86_64", "AMD64") else ("plain",)
    made = []
    for name in names:
        target = folder / f"_native_{name}.so"
        beside = target.with_suffix(".part")
        command = [*compiler.split(), *FLAGS, *VARIANTS[name], "-o", str(beside), str(folder / "native.c")]
        if subprocess.run(command, check=False).returncode == 0:
            beside.replace(target)
            made.append(target.name)
        else:
            beside.unlink(missing_ok=True)
    return made
