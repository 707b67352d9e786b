"""What the integers of a label map mean: names, nested regions, colours, codes.

Comes in: a scheme's name (``"kits"``) or a table from a recipe. Goes out: a LabelScheme that networks (number of
classes), scores (regions), measurements (organs and lesions) and pictures (colours) share. It knows no voxels, except
to check that a map follows its scheme.

A *label* is an integer in the file. A *region* is a union of labels that is scored as one, named as the challenges name
it (KiTS: kidney and masses, masses, tumour), in the order in which they are reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from hilum.errors import LabelError, RecipeError, UsageError

Kind = Literal["organ", "tumour", "cyst", "other"]


@dataclass(frozen=True)
class Label:
    """One integer of a label map.

    Attributes:
        value: the integer in the file, 1 to 255.
        name: as a person says it ("left kidney").
        kind: what it is; lesions are "tumour" and "cyst".
        organ: the name shared by what belongs together ("kidney" for kidney, its tumours and its cysts).
        side: "left" or "right" where the label is one of a pair of its own, else "".
        paired: True where one label covers both of a pair (KiTS "kidney"): measurements then tell left from right.
        colour: "#rrggbb", from colours that colour-blind readers tell apart (Okabe and Ito 2008).
        snomed: (code, meaning) of SNOMED CT for DICOM objects, or empty.
    """

    value: int
    name: str
    kind: Kind = "other"
    organ: str = ""
    side: Literal["", "left", "right"] = ""
    paired: bool = False
    colour: str = "#999999"
    snomed: tuple[str, str] | tuple[()] = ()

    @property
    def is_lesion(self) -> bool:
        """Whether components of this label are counted one by one."""
        return self.kind in ("tumour", "cyst")


@dataclass(frozen=True)
class Region:
    """A union of labels that is scored as one.

    Attributes:
        name: as the challenge calls it.
        labels: its members.
        writes: the label that a network of regions writes where it finds this one; 0 leaves it to ``writers``.
    """

    name: str
    labels: tuple[int, ...]
    writes: int = 0


@dataclass(frozen=True)
class LabelScheme:
    """All labels of a kind of label map, and the regions they are scored in.

    Attributes:
        name: as given on the command line.
        labels: ascending by value; background (0) is not listed.
        regions: in the order of the challenge's tables.
    """

    name: str
    labels: tuple[Label, ...]
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        values = [label.value for label in self.labels]
        if not values or values != sorted(set(values)) or values[0] < 1 or values[-1] > 255:
            raise RecipeError(
                f"label values {values}",
                where=f"label scheme {self.name}",
                wanted="distinct integers 1..255, ascending",
            )
        for region in self.regions:
            unknown = sorted(set(region.labels) - set(values))
            if unknown or not region.labels:
                raise RecipeError(
                    f"region {region.name!r} names the labels {unknown or 'none'}",
                    where=f"label scheme {self.name}",
                    wanted=f"labels of {values}",
                )
            if region.writes and region.writes not in values:
                raise RecipeError(
                    f"region {region.name!r} writes the label {region.writes}",
                    where=f"label scheme {self.name}",
                    wanted=f"one of {values}",
                )

    @property
    def values(self) -> tuple[int, ...]:
        """The integers, ascending, without background."""
        return tuple(label.value for label in self.labels)

    @property
    def class_count(self) -> int:
        """Number of classes of a softmax head: the labels and background."""
        return len(self.labels) + 1

    @property
    def sided(self) -> bool:
        """Whether left and right are different labels, so that mirroring along that axis would teach a lie."""
        return any(label.side for label in self.labels)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organ names in the order of their labels, each once."""
        return tuple(dict.fromkeys(label.organ for label in self.labels if label.organ))

    def label(self, value: int) -> Label:
        """The label with this integer."""
        for label in self.labels:
            if label.value == value:
                return label
        raise UsageError(f"label {value} is not in scheme {self.name!r}", wanted=f"one of {list(self.values)}")

    def of(self, organ: str, *kinds: Kind) -> tuple[int, ...]:
        """Label values that belong to an organ, of the given kinds (all kinds if none is given)."""
        return tuple(x.value for x in self.labels if x.organ == organ and (not kinds or x.kind in kinds))

    def region(self, name: str) -> Region:
        """The region with this name."""
        for region in self.regions:
            if region.name == name:
                return region
        raise UsageError(
            f"no region {name!r} in scheme {self.name!r}", wanted=f"one of {[r.name for r in self.regions]}"
        )

    def writers(self) -> tuple[tuple[int, int], ...]:
        """How the outputs of a network of regions become a label map: pairs (place in ``regions``, label to write).

        In the order in which they are written: later ones overwrite. Where regions say what they write, that is it, in
        their own order (nnU-Net's ``regions_class_order``). Otherwise larger unions come first, and each writes the one
        label that no later region holds: KiTS' kidney_and_mass 1, mass 3, tumor 2.

        Raises:
            RecipeError: only some regions say what they write, or a region's own label cannot be told.
        """
        said = [region.writes for region in self.regions]
        where = f"label scheme {self.name}"
        if all(said):
            return tuple(enumerate(said))
        if any(said):
            raise RecipeError("only some regions say which label they write", where=where, wanted="all, or none")
        order = sorted(range(len(said)), key=lambda place: -len(set(self.regions[place].labels)))
        pairs = []
        for step, place in enumerate(order):
            later = {label for other in order[step + 1 :] for label in self.regions[other].labels}
            own = sorted(set(self.regions[place].labels) - later)
            if len(own) != 1:
                raise RecipeError(
                    f"region {self.regions[place].name!r} has {own or 'no label'} for itself",
                    where=where,
                    wanted="regions that each have one label beyond the smaller ones, where a network predicts regions",
                    fix="name the regions otherwise, or take network.head = 'labels'",
                )
            pairs.append((place, own[0]))
        missing = sorted(set(self.values) - {label for _, label in pairs})
        if missing:
            raise RecipeError(f"the labels {missing} are written by no region", where=where, wanted="one region each")
        return tuple(pairs)

    def class_lookup(self) -> np.ndarray:
        """(256,) uint8: label value to class index (0 background, then ascending); unknown values become 0."""
        table = np.zeros(256, np.uint8)
        table[list(self.values)] = np.arange(1, self.class_count)
        return table

    def value_lookup(self) -> np.ndarray:
        """(class_count,) uint8: class index back to the label value."""
        return np.array((0, *self.values), np.uint8)

    def check(self, array: np.ndarray, where: str = "") -> np.ndarray:
        """A label array as uint8, every value known to the scheme.

        Raises:
            LabelError: fractions, negative or unknown values, naming them and how many voxels carry them.
        """
        if array.dtype.kind == "f":
            whole = np.isfinite(array) & (array == np.round(array))
            if not whole.all():
                examples = np.unique(array[~whole].ravel()[:1000])[:3].tolist()
                raise LabelError(
                    f"holds numbers that are no integers, such as {examples}",
                    where=where or None,
                    wanted=f"a label map of scheme {self.name!r}: 0 and {list(self.values)}",
                    fix="give the label map itself, not an image or probabilities, resampled with nearest neighbour",
                )
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= 255:
            counts = count_labels(array)
            found = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
        else:
            values, numbers = np.unique(array, return_counts=True)
            found = {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
        unknown = {v: n for v, n in found.items() if v != 0 and v not in self.values}
        if unknown:
            some = ", ".join(f"{v} ({n} voxels)" for v, n in list(unknown.items())[:6])
            raise LabelError(
                f"holds labels that scheme {self.name!r} does not know: {some}{' ...' if len(unknown) > 6 else ''}",
                where=where or None,
                wanted=f"0 and {list(self.values)}",
                fix="choose the right scheme, or describe yours under [labels] in the recipe",
            )
        return array.astype(np.uint8, copy=False)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings, for model folders and recipes."""
        table = asdict(self)
        for region in table["regions"]:
            if not region["writes"]:
                del region["writes"]
        return table


def count_labels(array: np.ndarray) -> np.ndarray:
    """(256,) int64: how many voxels carry each value 0..255.

    Piece by piece in memory order: in one go NumPy makes 64-bit numbers of all voxels, half a gigabyte for a scan.
    """
    flat, counts, piece = array.ravel(order="K"), np.zeros(256, np.int64), 1 << 18
    for start in range(0, flat.size, piece):
        counts += np.bincount(flat[start : start + piece].astype(np.uint8, copy=False), minlength=256)
    return counts


def scheme_from(table: str | Mapping[str, Any]) -> LabelScheme:
    """A scheme from its name, from ``to_json``'s form, or from the short form of recipes.

    The short form is ``{"name": "mine", "values": {"liver": 1, "tumour": 2}, "regions": {"liver": [1, 2]}}``; kinds are
    read off the names (tumour, tumor, lesion, mass, cancer; cyst; anything else is an organ), sides off "left"/"right".
    Lesions that name no organ are those of the only one there is.
    """
    if isinstance(table, str):
        if table not in SCHEMES:
            raise UsageError(f"no label scheme {table!r}", wanted=f"one of {sorted(SCHEMES)}")
        return SCHEMES[table]
    known = {"name", "labels", "regions", "values"}
    if not isinstance(table, Mapping):
        raise RecipeError(f"a label scheme {table!r}", wanted=f"one of {sorted(SCHEMES)}, or a table of your own")
    if set(table) - known:
        raise RecipeError(f"keys {sorted(set(table) - known)} in a label scheme", wanted=f"some of {sorted(known)}")
    name = str(table.get("name", "own"))
    if "values" in table:
        try:
            pairs = sorted((_integer(v), str(n)) for n, v in dict(table["values"]).items())
            labels = _with_hosts(tuple(_guess(value, label, i) for i, (value, label) in enumerate(pairs)))
            given = dict(table.get("regions", {})) or {label.name: [label.value] for label in labels}
            regions = tuple(Region(str(n), tuple(_integer(v) for v in vs)) for n, vs in given.items())
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"a label scheme that cannot be read ({error})",
                wanted="values such as { liver = 1, tumour = 2 }, regions such as { liver = [1, 2] }",
            ) from None
        return LabelScheme(name, labels, regions)
    try:
        labels = tuple(Label(**{**item, "snomed": tuple(item.get("snomed", ()))}) for item in table["labels"])
        regions = tuple(
            Region(item["name"], tuple(item["labels"]), _integer(item.get("writes", 0))) for item in table["regions"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"a label scheme that cannot be read ({error})", wanted="a name, or labels and regions"
        ) from None
    return LabelScheme(name, labels, regions)


def _integer(value: Any) -> int:
    if isinstance(value, float | bool):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _guess(value: int, name: str, place: int) -> Label:
    low = name.lower()
    side = "left" if "left" in low else "right" if "right" in low else ""
    lesion = any(word in low for word in ("tumour", "tumor", "lesion", "mass", "cancer", "metasta"))
    kind: Kind = "cyst" if "cyst" in low else "tumour" if lesion else "organ"
    organs = ("kidney", "liver", "spleen", "pancreas", "lung", "colon", "adrenal", "prostate", "bladder")
    organ = next((organ for organ in organs if organ in low), "")
    if not organ:
        organ = low.replace("left", "").replace("right", "").strip(" _-") if kind == "organ" else ""
    paired = kind == "organ" and not side and organ in _PAIRS
    return Label(value, name, kind, organ, side, paired, PALETTE[place % len(PALETTE)])  # type: ignore[arg-type]


def _with_hosts(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    organs = {label.organ for label in labels if label.kind == "organ"}
    if len(organs) != 1:
        return labels
    (host,) = organs
    return tuple(replace(label, organ=host) if label.is_lesion and not label.organ else label for label in labels)


_PAIRS = ("kidney", "lung", "adrenal")
PALETTE = ("#009E73", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#0072B2", "#F0E442", "#999999")
_KIDNEY, _LIVER = ("64033007", "Kidney"), ("10200004", "Liver")
_RIGHT_KIDNEY, _LEFT_KIDNEY = ("9846003", "Right kidney"), ("18639004", "Left kidney")
_MASS, _CYST = ("4147007", "Mass"), ("367643001", "Cyst")

_KITS_LABELS = (
    Label(1, "kidney", "organ", "kidney", paired=True, colour="#009E73", snomed=_KIDNEY),
    Label(2, "tumour", "tumour", "kidney", colour="#D55E00", snomed=_MASS),
    Label(3, "cyst", "cyst", "kidney", colour="#56B4E9", snomed=_CYST),
)
_KITS_REGIONS = (Region("kidney_and_mass", (1, 2, 3)), Region("mass", (2, 3)), Region("tumor", (2,)))

SCHEMES: dict[str, LabelScheme] = {
    scheme.name: scheme
    for scheme in (
        # KiTS21 and KiTS23: neheller/kits23 kits23/configuration/labels.py
        LabelScheme(
            "kits",
            _KITS_LABELS,
            _KITS_REGIONS,
        ),
        # KiTS19: cysts count as kidney; "kidney" is scored with the tumour in it
        LabelScheme(
            "kits19",
            _KITS_LABELS[:2],
            (Region("kidney_and_mass", (1, 2)), Region("tumor", (2,))),
        ),
        # KiTS' labels with liver and spleen beside them: synthetic CT knows them all
        LabelScheme(
            "trunk",
            (
                *_KITS_LABELS,
                Label(4, "liver", "organ", "liver", colour="#E69F00", snomed=_LIVER),
                Label(5, "liver tumour", "tumour", "liver", colour="#F0E442", snomed=_MASS),
                Label(6, "spleen", "organ", "spleen", colour="#CC79A7", snomed=("78961009", "Spleen")),
            ),
            (*_KITS_REGIONS, Region("liver", (4, 5)), Region("liver_lesion", (5,)), Region("spleen", (6,))),
        ),
        # LiTS and MSD Task03: liver is scored with its lesions (LiTS scorer: label >= 1)
        LabelScheme(
            "lits",
            (
                Label(1, "liver", "organ", "liver", colour="#E69F00", snomed=_LIVER),
                Label(2, "tumour", "tumour", "liver", colour="#D55E00", snomed=_MASS),
            ),
            (Region("liver", (1, 2)), Region("lesion", (2,))),
        ),
        # MSD Task08: hepatic vessels and tumours; the liver itself is not labelled
        LabelScheme(
            "hepatic_vessel",
            (
                Label(1, "hepatic vessel", "other", "liver", colour="#0072B2"),
                Label(2, "tumour", "tumour", "liver", colour="#D55E00", snomed=_MASS),
            ),
            (Region("vessel", (1,)), Region("lesion", (2,))),
        ),
        # 3D-IRCADb-01: the structures of its mask folders that do not overlap each other
        LabelScheme(
            "ircadb",
            (
                Label(1, "liver", "organ", "liver", colour="#E69F00", snomed=_LIVER),
                Label(2, "tumour", "tumour", "liver", colour="#D55E00", snomed=_MASS),
                Label(3, "cyst", "cyst", "liver", colour="#56B4E9", snomed=_CYST),
                Label(4, "right kidney", "organ", "kidney", "right", colour="#009E73", snomed=_RIGHT_KIDNEY),
                Label(5, "left kidney", "organ", "kidney", "left", colour="#0072B2", snomed=_LEFT_KIDNEY),
                Label(6, "spleen", "organ", "spleen", colour="#CC79A7", snomed=("78961009", "Spleen")),
                Label(7, "gallbladder", "organ", "gallbladder", colour="#F0E442", snomed=("28231008", "Gallbladder")),
            ),
            (
                Region("liver", (1, 2, 3)),
                Region("lesion", (2,)),
                Region("right_kidney", (4,)),
                Region("left_kidney", (5,)),
                *(Region(name, (value,)) for value, name in ((6, "spleen"), (7, "gallbladder"))),
            ),
        ),
        LabelScheme(
            "abdomen",
            (
                Label(1, "right kidney", "organ", "kidney", "right", colour="#009E73", snomed=_RIGHT_KIDNEY),
                Label(2, "left kidney", "organ", "kidney", "left", colour="#56B4E9", snomed=_LEFT_KIDNEY),
                Label(3, "liver", "organ", "liver", colour="#E69F00", snomed=_LIVER),
                Label(4, "spleen", "organ", "spleen", colour="#CC79A7", snomed=("78961009", "Spleen")),
            ),
            (Region("right_kidney", (1,)), Region("left_kidney", (2,)), Region("liver", (3,)), Region("spleen", (4,))),
        ),
    )
}
