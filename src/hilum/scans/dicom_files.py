"""Which files of a folder or zip are CT slices, and what their headers say.

Comes in: a folder (with or without sub-folders), a zip or one file. Goes out: a ``CtFile`` for each CT image with its
header, the place of its pixels in the file and one ``Slice`` a frame, and a count of what was left aside
(segmentations, reports, localizers, other modalities). It knows no geometry and decodes no pixels.

Names do not matter: DICOM files are known by their first bytes, so files without extension are read and text, pictures
and DICOMDIR beside them are passed over. Pixels are not read here, so a folder of 300 slices costs 300 small reads.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.config import IGNORE
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from hilum.cores import cpu_count
from hilum.errors import GeometryError, ScanError
from hilum.scans.dicom_headers import Head, Header, read_head
from hilum.scans.finding import natural_key

THREADS = min(8, cpu_count())
_AT_ONCE = 16  # headers a thread reads in one go: handing over single ones costs more than reading them
_CT_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "2.2"))  # CT, enhanced, converted
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture image storage: dose pages, screen shots
_LARGEST_ZIP = 32 << 30  # bytes once unpacked; a zip that promises more is no CT series


@dataclass(frozen=True, eq=False)
class Source:
    """Bytes with a name: a file on disk, or a member of a zip held in memory."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """A seekable binary file."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        return open(self.path, "rb")

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data) if self.data is not None else os.stat(self.path or self.name).st_size


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: a file, or one frame of a multi-frame file.

    Attributes:
        name: as errors call it: ``"1-04.dcm"``, ``"ct.dcm frame 3"``.
        file: where its pixels are.
        frame: place among the file's frames, from 0.
        position: (x, y, z) of the first pixel's centre, mm in LPS, or None if the header has none.
        orientation: direction cosines along a row, then down a column (LPS), or None.
        pixel_spacing: mm between rows, mm between columns, or None.
        slope: HU per stored unit.
        intercept: HU of stored 0.
    """

    name: str
    file: CtFile
    frame: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    slope: float
    intercept: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.file.integer("Rows", 0), self.file.integer("Columns", 0)


@dataclass(frozen=True, eq=False)
class CtFile:
    """A DICOM file that holds CT."""

    source: Source
    head: Head

    @property
    def series(self) -> str:
        """Series Instance UID, "" if there is none."""
        return self.text("SeriesInstanceUID")

    @property
    def frames(self) -> int:
        """Number of frames, 1 for a plain slice."""
        return self.integer("NumberOfFrames", 1)

    @property
    def syntax_name(self) -> str:
        """The transfer syntax in words."""
        if not self.head.syntax:
            return "unknown transfer syntax"
        return ascii(str(UID(self.head.syntax, validation_mode=IGNORE).name))[1:-1]  # damaged ones hold anything

    def text(self, keyword: str) -> str:
        """A value as text, "" if it is absent."""
        value = self.head.values.get(keyword, "")
        return value if isinstance(value, str) else "/".join(f"{v:g}" for v in value)

    def integer(self, keyword: str, absent: int) -> int:
        """A whole number, or ``absent``."""
        value = self.head.values.get(keyword)
        return int(value[0]) if isinstance(value, tuple) else absent

    def slices(self) -> list[Slice]:
        """One Slice a frame, with the facts of the functional groups where there are such."""
        frames = self.head.frames or [self.head.values] * self.frames
        if len(frames) < self.frames:
            raise ScanError(
                f"{self.frames} frames but functional groups for {len(frames)}",
                where=self.source.name,
                wanted="one for each frame",
                fix="the file is damaged: export it again",
            )
        return [self._slice(k, self.head.values | frames[k]) for k in range(self.frames)]

    def _slice(self, frame: int, values: Header) -> Slice:
        def numbers(keyword: str, count: int) -> tuple[float, ...] | None:
            value = values.get(keyword)
            if value is None:
                return None
            if len(value) != count or not all(isinstance(v, float) and abs(v) < 1e9 for v in value):
                raise GeometryError(
                    f"{keyword} is {value}",
                    where=self.source.name,
                    wanted=f"{count} finite numbers",
                    fix="export the series again",
                )
            return tuple(float(v) for v in value)

        return Slice(
            self.source.name if self.frames == 1 else f"{self.source.name} frame {frame + 1}",
            self,
            frame,
            numbers("ImagePositionPatient", 3),
            numbers("ImageOrientationPatient", 6),
            numbers("PixelSpacing", 2),
            (numbers("RescaleSlope", 1) or (1.0,))[0],
            (numbers("RescaleIntercept", 1) or (0.0,))[0],
        )


def ct_files(path: Path) -> tuple[list[CtFile], dict[str, int]]:
    """The CT images of a folder, zip or file, and how many other DICOM objects were left aside, by kind.

    A folder's own files are looked at first; only if none of them is CT, those of its sub-folders too.

    Raises:
        ScanError: nothing there, not a zip, no DICOM, no CT.
    """
    with warnings.catch_warnings():
        # pydicom remarks on odd but readable values (a long string, a UID with a letter); the reader is tolerant
        warnings.simplefilter("ignore")
        found: list[CtFile | str] = []
        for group in _groups(path):
            with ThreadPoolExecutor(THREADS) as pool:
                parts = pool.map(_read_headers, [group[k : k + _AT_ONCE] for k in range(0, len(group), _AT_ONCE)])
                found = [item for part in parts for item in part if item is not None]
            if any(isinstance(item, CtFile) for item in found):
                break
    files = [item for item in found if isinstance(item, CtFile)]
    others = dict(Counter(item for item in found if isinstance(item, str)))
    if not files:
        listed = ", ".join(f"{n} {kind}" for kind, n in others.items())
        raise ScanError(
            f"holds no CT images, only {listed}" if listed else "holds no DICOM images",
            where=path,
            wanted="a CT series (or a NIfTI, NRRD or MHA file)",
            fix="check the path",
        )
    return files, others


def _read_headers(sources: Sequence[Source]) -> list[CtFile | str | None]:
    return [read_header(source) for source in sources]


def read_header(source: Source) -> CtFile | str | None:
    """The header of a CT image; the kind of thing if it is another DICOM object; None if it is not DICOM.

    Raises:
        ScanError: an empty file with a DICOM name, or a file that begins as DICOM and cannot be parsed.
    """
    try:
        with source.open() as file:
            head = read_head(file)
        if head is None and source.size == 0 and source.name.lower().endswith((".dcm", ".ima")):
            raise ScanError("the file is empty", where=source.name, fix="copy or download the series again")
    except ScanError:
        raise
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror or error})", where=source.name) from None
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise ScanError(
            f"the DICOM header is damaged ({error})", where=source.name, fix="copy or export the file again"
        ) from None
    return None if head is None else _kind_of(CtFile(source, head))


def _kind_of(file: CtFile) -> CtFile | str:
    """The file itself if it is CT, or the kind under which it is left aside."""
    modality, values = file.text("Modality"), file.head.values
    if not modality and file.text("MediaStorageSOPClassUID") in _CT_CLASSES:
        raise ScanError("the DICOM header is cut off", where=file.source.name, fix="copy or export the file again")
    if modality != "CT":
        # a damaged header may put anything here, names too
        return (modality if modality.isalnum() and len(modality) <= 16 else "unknown") if modality else "DICOMDIR"
    if "LOCALIZER" in file.text("ImageType").split("\\"):
        return "localizer"
    if "ImagePositionPatient" not in values and not file.head.frames and file.text("SOPClassUID").startswith(_CAPTURES):
        return "secondary capture"
    if "Rows" not in values or not (file.head.pixel_start or file.head.syntax == DeflatedExplicitVRLittleEndian):
        raise ScanError("has no pixel data", where=file.source.name, fix="the file is cut off: copy or export it again")
    return file


def _groups(path: Path) -> Iterator[list[Source]]:
    """Files to look at, in the order of trying: a file, a zip's members, a folder's files, then its sub-folders'."""
    try:
        if path.is_dir():
            yield [Source(p.name, p) for p in in_order(p for p in path.iterdir() if p.is_file())]
            yield [Source(str(p.relative_to(path)), p) for p in in_order(p for p in path.rglob("*") if p.is_file())]
        elif zipfile.is_zipfile(path):
            yield _members(path)
        elif path.is_file():
            yield [Source(path.name, path)]
        else:
            raise ScanError("no such file or folder", where=path, fix="check the path")
    except PermissionError as error:
        raise ScanError("no permission to read it", where=error.filename or path) from None


def _members(path: Path) -> list[Source]:
    """The members of a zip, unpacked in memory (never to disk, so that member names can do no harm)."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir() and "__MACOSX" not in i.filename]
            size = sum(i.file_size for i in infos)
            if size > _LARGEST_ZIP:
                raise ScanError(f"unpacks to {size / 2**30:.0f} GiB", where=path, wanted="at most 32 GiB")
            return [
                Source(i.filename, None, archive.read(i)) for i in sorted(infos, key=lambda i: natural_key(i.filename))
            ]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise ScanError(f"the zip cannot be read ({error})", where=path, fix="pack or download it again") from None


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Paths as people sort them: ``image_2`` before ``image_10``."""
    return sorted(paths, key=lambda p: natural_key(str(p)))
