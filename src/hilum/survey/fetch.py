"""MANY FILES FROM SERVERS: what is missing, whether it fits, several at a time, with rate and time left.

Comes in: a kind of data set, or a list of files; a folder. Goes out: the files, and ``fetched.jsonl`` with length and
SHA-256 of each. Called again it takes up whatever is not whole. No other part of hilum opens a connection.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum.datasets import RemoteFile, facts_of, names
from hilum.errors import HilumError, OutputError, UsageError
from hilum.files import cannot_write
from hilum.progress import SILENT, Progress
from hilum.survey.download import FinalError, Offer, RetryError, download, offer_of, sums_of
from hilum.survey.unpacking import unpack

RECORD = "fetched.jsonl"
SPARE = 200_000_000  # bytes that stay free
TRIES = 6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_MB = 1_000_000


def fetch(
    name: str,
    out: Path,
    *,
    cases: str = "",
    jobs: int = 4,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fetch a public data set, or say what a person must do.

    Args:
        name: "kits23", or "msd:Task03_Liver".
        out: folder to fill.
        cases: numbers and spans, "0-9,15"; "" means all.
        jobs: files at a time.
        progress: told of megabytes.

    Returns:
        ``{"dataset", "licence", "citation", "fetched", "there", "failed": {path: reason}, "by_hand"}``.

    Raises:
        UsageError: no such public set, or cases that it does not have.
        OutputError: too little space, or nowhere to write.
    """
    kind, _, variant = name.partition(":")
    facts = facts_of(kind)
    if facts is None:
        raise UsageError(f"{kind!r} is no public data set", wanted=f"one of {[n for n in names() if facts_of(n)]}")
    answer: dict[str, Any] = {
        "dataset": name,
        "licence": facts.licence,
        "citation": facts.citation,
        "by_hand": facts.by_hand,
    }
    if facts.remote is None:
        return answer | {"fetched": 0, "there": 0, "failed": {}}
    if facts.variants and not variant:
        raise UsageError(f"{name!r} says not which", wanted=f"one of {[f'{kind}:{v}' for v in facts.variants]}")
    if variant and variant not in facts.variants:
        raise UsageError(
            f"no {variant!r} in {kind}", wanted=f"one of {list(facts.variants) or 'no part after a colon'}"
        )
    files = facts.remote(numbers_of(cases) if cases else None, variant)
    return answer | fetch_files(files, out, jobs=jobs, progress=progress)


def numbers_of(text: str) -> list[int]:
    """``"0-3,7"`` to ``[0, 1, 2, 3, 7]``.

    Raises:
        UsageError: anything else.
    """
    found: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"--cases {text!r}", wanted="numbers and spans, e.g. 0-9 or 3,7,20-29")
        found += range(int(first), int(last if dash else first) + 1)
    return found


def fetch_files(
    files: Sequence[RemoteFile],
    out: Path,
    *,
    jobs: int = 4,
    tries: int = TRIES,
    first_wait_s: float = _FIRST_WAIT_S,
    timeout_s: float = 60.0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fetch files, several at a time.

    Args:
        files: where from and where to.
        out: the folder that their paths are relative to.
        jobs: files at a time.
        tries: attempts in a row of which none brought a byte, before a file is given up.
        first_wait_s: before the second attempt; doubled each time.
        timeout_s: how long a silent server is waited for.
        progress: told of megabytes.

    Returns:
        ``{"fetched": count, "there": count, "bytes": count, "failed": {path: reason}}``.

    Raises:
        UsageError: another fetch is at work in the folder, or ``jobs`` below 1.
        OutputError: too little space, or nowhere to write; what has come stays.
    """
    if jobs < 1 or tries < 1:
        raise UsageError(f"{jobs} jobs, {tries} tries", wanted="at least 1")
    with _alone(out):
        record = _Record(out / RECORD)
        todo = [file for file in files if not record.has(file, out)]
        there = len(files) - len(todo)
        offers, failed = _offers(todo, jobs, timeout_s, progress)
        todo = [file for file in todo if file.path not in failed]
        need = _space_needed(todo, offers, out)
        meter = _Meter(progress, need)
        stop = threading.Event()

        def one(file: RemoteFile) -> None:
            if stop.is_set():
                return
            try:
                facts = _adopted(file, out, offers.get(file.path))
                facts = facts or _persistent(file, out, tries, first_wait_s, timeout_s, meter, stop)
                if file.unpack:
                    unpack(out / file.path)
                record.add(file, facts)
            except OutputError:
                stop.set()
                raise
            except HilumError as error:
                failed[file.path] = str(error)

        _run_all(one, todo, jobs, stop)
        meter.end()
    return {
        "fetched": len(todo) - sum(f.path in failed for f in todo),
        "there": there,
        "bytes": meter.done,
        "failed": failed,
    }


def _run_all(one: Callable[[RemoteFile], None], todo: Sequence[RemoteFile], jobs: int, stop: threading.Event) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, file) for file in todo]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()


def _adopted(file: RemoteFile, out: Path, offer: Offer | None) -> dict[str, Any] | None:
    """A file that somebody brought before: taken as it is if it is as long, and has the checksum, that is offered."""
    path = out / file.path
    if offer is None or offer.bytes is None or not path.is_file() or path.stat().st_size != offer.bytes:
        return None
    sums = sums_of(path)
    wanted = {**offer.sums, **({"md5": file.md5} if file.md5 else {})}
    if any(sums[name] != value.lower() for name, value in wanted.items()):
        return None
    return {"url": file.url, "bytes": offer.bytes, "sha256": sums["sha256"], "checked": [*wanted, "length"]}


def _persistent(
    file: RemoteFile,
    out: Path,
    tries: int,
    first_wait_s: float,
    timeout_s: float,
    meter: _Meter,
    stop: threading.Event,
) -> dict[str, Any]:
    """Attempts until the file is whole; only those that bring nothing count against it."""
    fruitless, wait_s, most = 0, first_wait_s, _part_size(file, out)
    while True:
        try:
            return download(
                file.url,
                out / file.path,
                md5=file.md5,
                tell=lambda count: meter.step(file.path, count, stop),
                timeout_s=timeout_s,
            )
        except RetryError as error:
            have = _part_size(file, out)
            gained, most = have > most, max(have, most)  # what is fetched a second time is no gain
            meter.forget(file.path)
            fruitless, wait_s = (1, first_wait_s) if gained else (fruitless + 1, wait_s * 2)
            if fruitless >= tries:
                raise FinalError(
                    f"{error.found} ({tries} attempts)", where=file.url, fix="run it again later"
                ) from None
            host = urllib.parse.urlsplit(file.url).netloc
            meter.trouble(f"{host}: {error.found}; trying again, {tries} times in all where nothing comes")
            if stop.wait(min(max(wait_s, error.wait_s), _LONGEST_WAIT_S)):
                raise


def _part_size(file: RemoteFile, out: Path) -> int:
    part = out / (file.path + ".part")
    return part.stat().st_size if part.exists() else 0


def _offers(
    todo: Sequence[RemoteFile], jobs: int, timeout_s: float, progress: Progress
) -> tuple[dict[str, Offer], dict[str, str]]:
    """What the servers say of each file; files that do not exist are failed before anything is fetched."""
    offers: dict[str, Offer] = {}
    failed: dict[str, str] = {}
    bar = progress.stage("Asking for sizes", len(todo))

    def ask(file: RemoteFile) -> tuple[RemoteFile, Offer | None, str]:
        try:
            return file, offer_of(file.url, timeout_s), ""
        except FinalError as error:
            return file, None, "" if " 405 " in error.found or " 501 " in error.found else str(error)
        except RetryError:
            return file, None, ""  # the download itself will try again

    with ThreadPoolExecutor(max(jobs, 8)) as pool:
        for file, offer, why in pool.map(ask, todo):
            if offer is not None:
                offers[file.path] = offer
            if why:
                failed[file.path] = why
            bar.step()
    return offers, failed


def _space_needed(todo: Sequence[RemoteFile], offers: dict[str, Offer], out: Path) -> int:
    """Bytes still to come; refuses before the first if they do not fit."""
    need = more = 0
    for file in todo:
        size = (offers[file.path].bytes if file.path in offers else None) or file.bytes
        need += size
        more += max(0, size - _part_size(file, out)) + (size if file.unpack else 0)
    free = shutil.disk_usage(out).free
    if more + SPARE > free:
        raise OutputError(
            f"{more / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free",
            where=out,
            wanted="room for all of it and 0.2 GB to spare",
            fix="free some space, choose another --out, or fetch fewer --cases",
        )
    return need


class _Record:
    """``fetched.jsonl``: what was fetched whole; a file counts as there while its length is still that."""

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        self.known: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
                self.known[row["path"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # cut off by a kill

    def has(self, file: RemoteFile, out: Path) -> bool:
        """Whether the file was fetched and is still as long as it was."""
        row, path = self.known.get(file.path), out / file.path
        if row is None:
            return False
        if file.unpack:
            return (out / Path(file.path).stem).is_dir()
        return path.is_file() and path.stat().st_size == row["bytes"]

    def add(self, file: RemoteFile, facts: dict[str, Any]) -> None:
        """One more."""
        with self._lock:
            try:
                with open(self.path, "a", encoding="utf-8") as out:
                    out.write(json.dumps({"path": file.path, **facts}) + "\n")
            except OSError as error:
                raise cannot_write(self.path, error) from error


class _Meter:
    """Bytes of all files, as one bar of megabytes with the rate of the last seconds."""

    def __init__(self, progress: Progress, total: int):
        self._bar = progress.stage("Fetching, MB", max(1, round(total / _MB)))
        self._lock, self._files, self.done = threading.Lock(), dict[str, int](), 0
        self._shown, self._began, self._fresh, self._told = 0, time.monotonic(), 0, set[str]()

    def forget(self, path: str) -> None:
        """An attempt ended: the next counts from its own beginning."""
        with self._lock:
            self.done -= self._files.pop(path, 0)

    def step(self, path: str, count: int, stop: threading.Event) -> None:
        """More bytes; raises where another file found the disk full."""
        if stop.is_set():
            raise RetryError("stopped")
        with self._lock:
            self._files[path] = self._files.get(path, 0) + count
            self.done += count
            self._fresh += max(0, count)
            whole = min(self.done // _MB, self._bar.total - 1)
            if whole > self._shown:
                rate = self._fresh / max(1e-3, time.monotonic() - self._began) / _MB
                self._bar.step(whole - self._shown, f"{rate:.1f} MB/s, {Path(path).parent.name or path}")
                self._shown = whole

    def trouble(self, text: str) -> None:
        """A line, once: many files wait for one server."""
        with self._lock:
            new = text not in self._told
            self._told.add(text)
        if new:
            self._bar.say(text)

    def end(self) -> None:
        """The bar's last line."""
        self._bar.step(self._bar.total - self._shown)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One fetch a folder: two would write into the same part."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / ".fetch.lock", "w")  # noqa: SIM115 - it is held until the end
    except OSError as error:
        raise cannot_write(out, error) from error
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # Windows: nothing guards there
        except OSError:
            raise UsageError(f"another fetch is at work in {out}", fix="wait for it, or choose another --out") from None
        yield
