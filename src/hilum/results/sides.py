"""Left and right of organs that come in pairs.

Comes in: a label map in "SPL" order, one organ of its scheme, and the scan where there is one. Goes out: for each
voxel of the organ and its lesions the side it belongs to, with warnings where that was not plain. It measures
nothing.

Sides are the patient's and are decided in world millimetres (RAS+: x grows to the patient's right), never by array
index. Whole components of organ and lesions go to the side on which their centroid lies, so a tumour that bulges
across the mid-plane stays with its kidney. Only one component that is thick on both sides and thin between them (a
horseshoe kidney, or two kidneys that touch) is cut at the mid-plane.

The mid-plane is, in this order: the x of the centroid of the body (HU above -500) over the slices that hold the
organ; half-way between the two largest components, if they lie side by side; the waist of a horseshoe; the centre of
the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from hilum.components import components_of
from hilum.labels import LabelScheme
from hilum.volume import Grid, Volume

SIDES = ("", "right", "left")  # index = code in a side map
BODY_HU = -500
SUBSTANTIAL = 0.1  # of the largest component: a kidney of its own, not a speck or a piece
LOBE = 0.2  # of the organ's voxels on the thinner side of a horseshoe
UNSURE_MM = 15.0


@dataclass(frozen=True)
class Piece:
    """One component of an organ with its lesions."""

    number: int
    voxels: int
    centroid_mm: np.ndarray
    x_range: tuple[int, int]
    box: tuple[slice, slice, slice]


def is_two_sided(scheme: LabelScheme, organ: str) -> bool:
    """Whether an organ is told apart by side: one label for both, or a label for each."""
    labels = [scheme.label(value) for value in scheme.of(organ)]
    return any(label.paired or label.side for label in labels)


def body_mid_x_mm(scan: Volume, slices: tuple[int, int]) -> float | None:
    """World x of the centroid of the body over some axial slices, or None if nothing is denser than -500 HU.

    Args:
        scan: HU in SPL order.
        slices: first slice and the one after the last.
    """
    steps = [max(1, round(4.0 / spacing)) for spacing in scan.spacing_mm]
    z0, z1 = slices
    thin = scan.array[z0 : z1 : steps[0], :: steps[1], :: steps[2]] > BODY_HU
    pieces, _ = components_of(thin, 6)
    counts = np.bincount(pieces.ravel())
    if len(counts) < 2:
        return None
    largest = np.argwhere(pieces == 1 + counts[1:].argmax()).mean(axis=0)  # the table is a component of its own
    return float(scan.world(largest * steps + [z0, 0, 0])[0])


def sides_of(
    labels_DHW: np.ndarray, grid: Grid, scheme: LabelScheme, organ: str, *, body_x_mm: float | None, centre_x_mm: float
) -> tuple[np.ndarray, list[str]]:
    """The side of every voxel of an organ and its lesions.

    Args:
        labels_DHW: (D, H, W) uint8 label map, or a cut-out of it, in SPL order.
        grid: where its voxels lie.
        scheme: what the labels mean.
        organ: an organ for which ``is_two_sided`` holds.
        body_x_mm: the body's mid-plane, if a scan told it.
        centre_x_mm: world x of the centre of the whole image.

    Returns:
        (D, H, W) uint8 with 0 elsewhere, 1 the patient's right, 2 left (see ``SIDES``); and warnings.
    """
    values = scheme.of(organ)
    if any(scheme.label(value).side for value in values):
        return _by_label(labels_DHW, grid, scheme, organ, body_x_mm, centre_x_mm), []
    pieces_DHW, pieces = _pieces(np.isin(labels_DHW, values), grid)
    table = np.zeros(len(pieces) + 1, np.uint8)
    if not pieces:
        return table[pieces_DHW], []
    mid_x_mm, warnings = _mid_plane(pieces, body_x_mm, centre_x_mm)
    sizeable = [piece for piece in pieces if piece.voxels >= SUBSTANTIAL * pieces[0].voxels]
    cut_x_mm = None
    if len(sizeable) == 1:
        organ_values = scheme.of(organ, "organ")
        cut_x_mm = _horseshoe(labels_DHW, pieces_DHW, pieces[0], grid, organ_values, mid_x_mm, body_x_mm is not None)
        mid_x_mm = mid_x_mm if cut_x_mm is None else cut_x_mm
    for piece in pieces:
        table[piece.number] = 1 if piece.centroid_mm[0] > mid_x_mm else 2
    side_DHW = table[pieces_DHW]
    if cut_x_mm is not None:
        box = pieces[0].box
        mine = pieces_DHW[box] == pieces[0].number
        side_DHW[box][mine] = np.where(_x_mm(grid, box)[mine] > cut_x_mm, 1, 2)
        warnings.append(
            f"The two {organ}s are one connected piece (a horseshoe {organ}, or two that touch): cut at the mid-plane."
        )
    elif len(sizeable) == 1 and abs(pieces[0].centroid_mm[0] - mid_x_mm) < UNSURE_MM:
        warnings.append(f"The only {organ} lies close to the mid-plane: its side is uncertain.")
    return side_DHW, warnings


def _pieces(mask_DHW: np.ndarray, grid: Grid) -> tuple[np.ndarray, list[Piece]]:
    """Numbered components (26 neighbours) and their facts, largest first."""
    pieces_DHW, count = components_of(mask_DHW)
    facts = cc3d.statistics(pieces_DHW)
    pieces = []
    for number in range(1, count + 1):
        box = facts["bounding_boxes"][number]
        centroid_mm = grid.world(facts["centroids"][number])
        columns = (int(box[2].start), int(box[2].stop))
        pieces.append(Piece(number, int(facts["voxel_counts"][number]), centroid_mm, columns, box))
    return pieces_DHW, sorted(pieces, key=lambda piece: -piece.voxels)


def _mid_plane(pieces: Sequence[Piece], body_x_mm: float | None, centre_x_mm: float) -> tuple[float, list[str]]:
    """World x of the plane between right and left."""
    first = pieces[0]
    second = next((p for p in pieces[1:] if p.voxels >= SUBSTANTIAL * first.voxels and _beside(first, p)), None)
    if body_x_mm is not None:
        if second is not None and (first.centroid_mm[0] > body_x_mm) == (second.centroid_mm[0] > body_x_mm):
            side = "right" if first.centroid_mm[0] > body_x_mm else "left"
            return body_x_mm, [f"Two separate pieces lie side by side on the patient's {side}: check their sides."]
        return body_x_mm, []
    if second is not None:
        return float(first.centroid_mm[0] + second.centroid_mm[0]) / 2, []
    return centre_x_mm, []


def _beside(one: Piece, other: Piece) -> bool:
    """Whether two pieces share no column, as the two kidneys do and two pieces of one kidney do not."""
    return one.x_range[1] <= other.x_range[0] or other.x_range[1] <= one.x_range[0]


def _horseshoe(
    labels_DHW: np.ndarray,
    pieces_DHW: np.ndarray,
    piece: Piece,
    grid: Grid,
    organ_values: Sequence[int],
    mid_x_mm: float,
    mid_is_known: bool,
) -> float | None:
    """Where to cut a component that is two organs in one, or None if it is a single organ.

    Two organs: at least a fifth of the organ's own voxels on either side of the cut, and at the cut less than half as
    thick as the thickest place on either side.
    """
    box = piece.box
    organ = (pieces_DHW[box] == piece.number) & np.isin(labels_DHW[box], organ_values)
    x_mm = _x_mm(grid, box)[organ]
    width_mm = 2.0 * grid.spacing_mm[2]
    if x_mm.size == 0 or np.ptp(x_mm) < 6 * width_mm:
        return None
    edges = np.arange(x_mm.min(), x_mm.max() + width_mm, width_mm)
    profile = np.histogram(x_mm, edges)[0]
    if mid_is_known:
        cuts = [int(np.clip(np.searchsorted(edges, mid_x_mm) - 1, 0, len(profile) - 1))]
    else:
        share = np.cumsum(profile) / profile.sum()
        middle = np.flatnonzero((share > LOBE) & (share < 1 - LOBE))
        cuts = [int(middle[profile[middle].argmin()])] if len(middle) else []
    for cut in cuts:
        low, high = profile[:cut], profile[cut + 1 :]
        if min(low.sum(), high.sum()) >= LOBE * profile.sum() and profile[cut] < 0.5 * min(low.max(), high.max()):
            return mid_x_mm if mid_is_known else float(edges[cut] + width_mm / 2)
    return None


def _by_label(
    labels_DHW: np.ndarray,
    grid: Grid,
    scheme: LabelScheme,
    organ: str,
    body_x_mm: float | None,
    centre_x_mm: float,
) -> np.ndarray:
    """Sides where each has a label of its own: lesions go with the side they touch most, else with the nearer half."""
    table = np.zeros(256, np.uint8)
    for value in scheme.of(organ):
        table[value] = SIDES.index(scheme.label(value).side)
    side_DHW: np.ndarray = table[labels_DHW]
    free = [value for value in scheme.of(organ) if not scheme.label(value).side]
    loose_DHW, loose = _pieces(np.isin(labels_DHW, free), grid)
    if not loose:
        return side_DHW
    known = {code: np.flatnonzero((side_DHW == code).any(axis=(0, 1))) for code in (1, 2)}
    if all(len(columns) for columns in known.values()):
        middle = np.mean([np.mean(columns) for columns in known.values()])
        mid_x_mm = float(grid.world([*(np.array(grid.shape[:2]) - 1) / 2, middle])[0])
    else:
        mid_x_mm = centre_x_mm if body_x_mm is None else body_x_mm
    own_DHW = side_DHW.copy()
    for piece in loose:
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in piece.box)
        mine = loose_DHW[around] == piece.number
        touched = np.bincount(own_DHW[around][_grown(mine)], minlength=3)
        code = 1 + int(touched[2] > touched[1])
        if touched[1] == touched[2]:
            code = 1 if piece.centroid_mm[0] > mid_x_mm else 2
        side_DHW[around][mine] = code
    return side_DHW


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask with all 26 neighbours of its voxels."""
    grown: np.ndarray = mask
    for axis in range(3):
        wide = np.pad(grown, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        parts = [np.take(wide, range(start, start + mask.shape[axis]), axis=axis) for start in (0, 1, 2)]
        grown = parts[0] | parts[1] | parts[2]
    return grown


def _x_mm(grid: Grid, box: tuple[slice, slice, slice]) -> np.ndarray:
    """World x of every voxel of a box."""
    indices = np.ogrid[box]
    x: np.ndarray = sum((grid.affine[0, a] * indices[a] for a in range(3)), np.asarray(grid.affine[0, 3]))
    return x
