from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hilum import cores


@pytest.mark.parametrize(
    ("text", "most"), [("150000 100000\n", 2), ("100000 100000", 1), ("1 100000", 1), ("max 100000", 64), ("", 64)]
)
def test_a_containers_quota_limits_the_processors(tmp_path, monkeypatch, text: str, most: int) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert cores.cpu_count(file) == most


@pytest.mark.parametrize(("share", "expected"), [("250000", 3), ("-1", 64)])
def test_the_older_two_files(tmp_path, monkeypatch, share: str, expected: int) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    files = tmp_path / "quota", tmp_path / "period"
    files[0].write_text(share)
    files[1].write_text("100000\n")
    assert cores.cpu_count(*files) == expected


def test_asking_imports_no_torch() -> None:
    code = "import sys, hilum.cores as c; assert c.cpu_count() >= 1; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WITH_POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from hilum.cores import end_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "with_pool.py"
    script.write_text(WITH_POOL, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    for _ in range(300):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"worker {worker} outlived its parent")
