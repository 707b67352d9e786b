"""ONE FILE FROM A SERVER: whole or not there, gone on with after any interruption.

Comes in: an address and a path. Goes out: the file under its name, or ``NAME.part`` (with ``NAME.part.json`` beside,
which says of what), or an error that says whether another attempt could help. What was downloaded is trusted only when
its length and its checksum agree, where the server or the source offers them; gzip files are decompressed to their end.
It knows no data set.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any

from hilum import __version__
from hilum.errors import InputError, ScanError
from hilum.files import cannot_write, read_json, write_json
from hilum.scans import gzipped

CHUNK = 1 << 18
TIMEOUT_S = 60.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_HEX = re.compile(r'^(?:W/)?"?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})"?$')


class RetryError(InputError):
    """A failure that may pass: another attempt goes on where this one stopped."""

    wait_s: float = 0.0


class RangeError(RetryError):
    """The server has no such range: what is here is no part of its file."""


class FinalError(InputError):
    """A failure that another attempt would repeat."""


@dataclass(frozen=True)
class Offer:
    """What a server says of a file before it sends it.

    Attributes:
        bytes: its length, None if unknown.
        etag: identifies this version of it; "" if there is none.
        sums: checksums by algorithm ("sha256", "md5"), in hexadecimal.
    """

    bytes: int | None
    etag: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what the first server said of the file: Hugging Face names its SHA-256 there."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        self.said |= {k.lower(): str(v) for k, v in headers.items() if k.lower().startswith("x-linked-")}
        if new is not None and req.get_method() == "HEAD":
            new.method = "HEAD"
        return new


def offer_of(url: str, timeout_s: float = TIMEOUT_S) -> Offer:
    """Ask for a file's length and checksum without fetching it.

    Raises:
        FinalError: there is no such file, or it may not be read.
        RetryError: the server cannot be reached.
    """
    with _answer(url, {}, "HEAD", timeout_s) as answer:
        return _offer(answer, _length(answer))


def download(
    url: str,
    target: Path,
    *,
    md5: str = "",
    tell: Callable[[int], None] = lambda count: None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """One attempt, going on from what an earlier one left.

    Args:
        url: where from.
        target: where to; its folder is made.
        md5: checksum that the source publishes, if it does.
        tell: told of bytes as they arrive; of a negative number when they have to be thrown away.
        timeout_s: how long a silent server is waited for.

    Returns:
        ``{"url", "bytes", "sha256", "checked"}``; "checked" says what proved it whole.

    Raises:
        RetryError: connection lost, server busy, wrong checksum: the next attempt goes on, or begins anew.
        FinalError: no such file.
        OutputError: the disk is full or not writable; what is there stays for later.
    """
    part, notes = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
    except OSError as error:
        raise cannot_write(target, error) from error
    before = _noted(notes) if have else {}
    if have and (before.get("url") != url or not before.get("etag")):
        have = 0  # of what this part is cannot be told: begin anew
    asked = {"Range": f"bytes={have}-", "If-Range": str(before["etag"])} if have else {}
    with _parted(url, asked, timeout_s, part, notes) as answer:
        start = _range_start(answer) if answer.status == 206 else 0
        if start not in (0, have):
            raise RetryError(f"the server sent bytes from {start} on instead of {have}", where=url)
        length = _length(answer)
        total = None if length is None else start + length
        offer = _offer(answer, total)
        if start:
            tell(start)  # counted as done, though fetched before
        try:
            write_json(notes, {"url": url, "etag": offer.etag, "bytes": total})
            got = _receive(answer, part, start, tell)
        except OSError as error:
            if isinstance(error, TimeoutError | ConnectionError | socket.timeout):
                raise RetryError(f"the connection was lost ({error})", where=url) from None
            raise cannot_write(part, error) from error
    return _accepted(url, target, part, notes, offer, got, md5, tell)


def _parted(url: str, asked: Mapping[str, str], timeout_s: float, part: Path, notes: Path) -> http.client.HTTPResponse:
    """The answer to a request that may be for the rest of a part."""
    try:
        return _answer(url, asked, "GET", timeout_s)
    except RangeError:
        _drop(part, notes)
        raise


def _receive(answer: http.client.HTTPResponse, part: Path, start: int, tell: Callable[[int], None]) -> int:
    """Bytes to the part, as they come; how many there are then."""
    got = start
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while True:
            try:
                piece = answer.read(CHUNK)
            except http.client.IncompleteRead as error:
                piece = error.partial
                file.write(piece)
                tell(len(piece))
                raise ConnectionError(f"{error.expected} bytes did not come") from None
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from None
            if not piece:
                file.flush()
                os.fsync(file.fileno())
                return got
            file.write(piece)
            got += len(piece)
            tell(len(piece))


def _accepted(
    url: str,
    target: Path,
    part: Path,
    notes: Path,
    offer: Offer,
    got: int,
    md5: str,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """The part, found whole, under its own name."""
    if offer.bytes is not None and got < offer.bytes:
        raise RetryError(f"only {got} of {offer.bytes} bytes came", where=url)
    wanted = dict(offer.sums) | ({"md5": md5} if md5 else {})
    sums = sums_of(part)
    wrong = [name for name, value in wanted.items() if sums[name] != value.lower()]
    if wrong or (offer.bytes is not None and got > offer.bytes):
        _drop(part, notes)
        tell(-got)
        raise RetryError(f"{got} bytes came with a wrong {wrong[0] if wrong else 'length'}", where=url)
    checked = [*wanted, *(["length"] if offer.bytes is not None else [])]
    if target.name.endswith(".gz"):
        try:
            with gzipped.opened(part) as reader:
                whole = reader.zipped and reader.finish() >= 0
        except ScanError as error:
            _drop(part, notes)
            tell(-got)
            raise RetryError(f"what came is no whole gzip file ({error.found})", where=url) from None
        if not whole:
            _drop(part, notes)
            raise FinalError(
                "what came is no gzip file", where=url, fix="the server may ask for a login: open it by hand"
            )
        checked.append("gzip")
    try:
        part.replace(target)
        notes.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    return {"url": url, "bytes": got, "sha256": sums["sha256"], "checked": checked}


def _answer(url: str, headers: Mapping[str, str], method: str, timeout_s: float) -> http.client.HTTPResponse:
    """The server's answer, 2xx."""
    sent = {"User-Agent": f"hilum/{__version__}", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=sent, method=method)
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        answer = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise RetryError(f"cannot be reached ({getattr(error, 'reason', error)})", where=url) from None
    answer.said = redirects.said
    return answer  # type: ignore[no-any-return]


def _refusal(url: str, error: urllib.error.HTTPError) -> InputError:
    if error.code == 416:
        return RangeError("the server has no such range", where=url, fix="the file is fetched anew")
    if error.code in _PASSING:
        again = RetryError(f"the server answers {error.code} ({error.reason})", where=url)
        wait = str(error.headers.get("Retry-After", ""))
        again.wait_s = min(float(wait), 300.0) if wait.isdecimal() else 0.0
        return again
    fix = "the file may have moved: look at the set's home page" if error.code in (404, 410) else "it needs a login"
    return FinalError(f"the server answers {error.code} ({error.reason})", where=url, fix=fix)


def _offer(answer: http.client.HTTPResponse, total: int | None) -> Offer:
    """Checksums that servers offer: Hugging Face, RFC 9530 and 3230, S3 and Google."""
    headers: Message = answer.headers
    said = getattr(answer, "said", {})
    sums: dict[str, str] = {}
    linked = _HEX.match(str(said.get("x-linked-etag", headers.get("X-Linked-Etag", ""))))
    if linked and len(linked[1]) == 64:
        sums["sha256"] = linked[1].lower()
    etag = str(headers.get("ETag", ""))
    plain = _HEX.match(etag)
    if plain and len(plain[1]) == 32 and "s3" in str(headers.get("Server", "")).lower():
        sums["md5"] = plain[1].lower()
    for name in ("Repr-Digest", "Digest", "x-goog-hash"):
        for entry in str(headers.get(name, "")).split(","):
            kind, _, value = entry.strip().partition("=")
            algorithm = {"sha-256": "sha256", "md5": "md5"}.get(kind.lower())
            if algorithm and value:
                sums[algorithm] = _hex(value)
    if headers.get("Content-MD5") and getattr(answer, "status", 200) == 200:
        sums["md5"] = _hex(str(headers["Content-MD5"]))
    linked_size = str(said.get("x-linked-size", ""))
    if total is None and linked_size.isdecimal():
        total = int(linked_size)
    if not etag or etag.startswith("W/"):  # a weak tag does not promise equal bytes, a time does (RFC 9110, 13.1.5)
        etag = str(headers.get("Last-Modified", ""))
    return Offer(total, etag, {k: v for k, v in sums.items() if v})


def _hex(value: str) -> str:
    try:
        return base64.b64decode(value.strip(":").strip('"')).hex()
    except ValueError:
        return ""


def _length(answer: http.client.HTTPResponse) -> int | None:
    text = str(answer.headers.get("Content-Length", ""))
    return int(text) if text.isdecimal() else None


def _range_start(answer: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes (\d+)-", str(answer.headers.get("Content-Range", "")))
    return int(match[1]) if match else -1


def _noted(notes: Path) -> dict[str, Any]:
    try:
        found = read_json(notes)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _drop(part: Path, notes: Path) -> None:
    part.unlink(missing_ok=True)
    notes.unlink(missing_ok=True)


def sums_of(path: Path) -> dict[str, str]:
    """SHA-256 and MD5 of a file, in hexadecimal."""
    made = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            for one in made.values():
                one.update(piece)
    return {name: one.hexdigest() for name, one in made.items()}
