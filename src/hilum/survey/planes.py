"""VOLUME -> SLICES -> VOLUME: cutting along an axis, to a fixed size and a grey scale, and undoing it exactly.

Comes in: volumes in SPL order. Goes out: 2-D arrays as radiologists see them (axial and coronal with the patient's
right on the left, sagittal with the front on the left, head up), and a ``Cut`` that says how each came about, so that
label slices find back to their voxels. It opens no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from hilum.components import nonzero_box
from hilum.errors import GeometryError
from hilum.pages.slices import body_box, whole
from hilum.volume import Volume

Axis = Literal["axial", "coronal", "sagittal"]
Crop = Literal["none", "positive", "body", "labels"]
AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
CROPS: tuple[Crop, ...] = ("none", "positive", "body", "labels")


@dataclass(frozen=True)
class Cut:
    """How slices of one case are cut.

    Attributes:
        axis: which way.
        box: first voxel and one after the last along the SPL axes; what lies outside is not in the slices.
        size: rows and columns of the slices as written; those of the box where nothing is resized.
    """

    axis: Axis
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    size: tuple[int, int]

    @classmethod
    def of(cls, axis: Axis, box: Sequence[tuple[int, int]], resize: int) -> Cut:
        """The cut of a box; ``resize`` pixels square, or 0 for one pixel a voxel."""
        a, b, c = ((int(low), int(high)) for low, high in box)
        rest = [high - low for place, (low, high) in enumerate((a, b, c)) if place != AXES.index(axis)]
        return cls(axis, (a, b, c), (resize, resize) if resize else (rest[0], rest[1]))

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Cut:
        """What ``to_json`` wrote."""
        a, b, c = ((int(low), int(high)) for low, high in table["box"])
        return cls(table["axis"], (a, b, c), (int(table["size"][0]), int(table["size"][1])))

    def to_json(self) -> dict[str, Any]:
        """Plain fields."""
        return asdict(self)

    @property
    def indices(self) -> range:
        """Places along the SPL axis that is cut."""
        return range(*self.box[AXES.index(self.axis)])

    @property
    def natural(self) -> tuple[int, int]:
        """Rows and columns of a slice before it is resized."""
        rest = [high - low for place, (low, high) in enumerate(self.box) if place != AXES.index(self.axis)]
        return rest[0], rest[1]

    def plane(self, array_DHW: np.ndarray, index: int) -> np.ndarray:
        """(rows, columns): one slice in the box as it is seen; a view: what is written to it is written back."""
        place = AXES.index(self.axis)
        rest = tuple(slice(*pair) for i, pair in enumerate(self.box) if i != place)
        picture: np.ndarray = np.moveaxis(array_DHW, place, 0)[index][rest]
        return picture if self.axis == "axial" else picture[::-1]  # S grows upwards

    def grey(self, plane: np.ndarray, window_hu: tuple[float, float], gamma: float) -> np.ndarray:
        """HU to 0..255 at the size: window, contrast (x ** gamma), then resized, as MONAI's chain goes.

        Smaller pictures are averaged over the voxels that each pixel covers (Pillow's bilinear filter).
        """
        low, high = window_hu
        shade = np.clip((plane.astype(np.float32) - low) / (high - low), 0.0, 1.0) ** np.float32(gamma)
        if shade.shape != self.size:
            image = Image.fromarray(np.ascontiguousarray(shade, np.float32))
            shade = np.asarray(image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR))
        picture: np.ndarray = np.round(np.clip(shade, 0.0, 1.0) * 255).astype(np.uint8)
        return picture

    def labels(self, plane: np.ndarray) -> np.ndarray:
        """Labels at the size, by nearest neighbours."""
        return nearest(plane, self.size)

    def put_back(self, array_DHW: np.ndarray, index: int, slice_: np.ndarray) -> None:
        """Write a label slice of this cut's size into a volume, at the voxels it came from.

        Where slices are at least as large as the voxels' own rows and columns, this undoes ``labels`` exactly.

        Raises:
            GeometryError: a slice of another size.
        """
        if slice_.shape != self.size:
            raise GeometryError(
                f"a slice of {slice_.shape[0]}x{slice_.shape[1]} pixels", wanted=f"{self.size[0]}x{self.size[1]}"
            )
        self.plane(array_DHW, index)[...] = nearest(slice_, self.natural)


def nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(rows, columns) by nearest neighbours: pixel i of m takes voxel floor((i + 1/2) n / m).

    Larger and back again is exact: the middle of a voxel's pixels lies in that voxel.
    """
    rows, columns = (((2 * np.arange(m) + 1) * n) // (2 * m) for n, m in zip(picture.shape, size, strict=True))
    taken: np.ndarray = picture[np.ix_(rows, columns)]
    return taken


def crop_box(crop: Crop, scan: Volume | None, labels: Volume | None) -> tuple[tuple[int, int], ...]:
    """What slices show: everything; what is above 0 HU (MONAI's CropForeground); the body; or what is labelled.

    Everything, where a case has nothing of the kind.
    """
    volume = scan if scan is not None else labels
    assert volume is not None
    if crop == "body" and scan is not None:
        return body_box(scan)
    if crop == "positive" and scan is not None:
        found = nonzero_box(scan.array > 0)
        return whole(scan.shape) if found is None else tuple((part.start, part.stop) for part in found)
    if crop == "labels" and labels is not None:
        found = nonzero_box(labels.array)
        return whole(labels.shape) if found is None else tuple((part.start, part.stop) for part in found)
    return whole(volume.shape)
