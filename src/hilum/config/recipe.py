"""What a recipe may say: one frozen dataclass a section, defaults included."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hilum.errors import RecipeError
from hilum.labels import SCHEMES, LabelScheme, scheme_from


@dataclass(frozen=True)
class DataOptions:
    """Which cases. ``dataset`` is a file name in ``hilum/datasets`` (or a dotted name of one's own).

    ``stratify`` makes folds even in the volume of lesions, from cases without to the largest; otherwise chance does.
    ``folds_file`` takes the folds from a file instead (``hilum data folds`` writes one); ``split_sides`` gives right
    and left of paired organs labels of their own. ``where`` chooses cases, e.g. "slices <= 110 and hu_max <= 1679"
    (``hilum data explore`` shows the facts that may be named).
    """

    dataset: str = ""
    path: str = ""
    folds: int = 5
    folds_file: str = ""
    split_sides: bool = False
    where: str = ""
    stratify: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PrepareOptions:
    """What the plan must respect; zeros and empty lists mean "decide from the data".

    In 2D: ``context`` neighbours on each side of a slice become further channels; ``inplane`` is the fixed size (rows,
    columns) that every slice is resized to. ``gamma`` bends a window: ``x ** gamma``.

    ``labels`` says how label maps come to the plan's spacing: "linear" gives a voxel to the class with the largest
    linearly interpolated share, "nearest" to that of the nearest voxel.
    """

    dims: Literal[2, 3] = 3
    spacing_mm: tuple[float, ...] = ()
    patch: tuple[int, ...] = ()
    batch: int = 0
    memory_gb: float = 8.0
    base_features: int = 32
    max_features: int = 320
    normalisation: Literal["ct", "zscore", "window"] = "ct"
    window_hu: tuple[float, ...] = ()
    gamma: float = 1.0
    context: int = 0
    inplane: tuple[int, ...] = ()
    labels: Literal["linear", "nearest"] = "linear"


@dataclass(frozen=True)
class NetworkOptions:
    """A file name in ``hilum/networks`` and what it takes besides the plan.

    ``head`` is "labels" (softmax over the labels) or "regions" (a sigmoid for each region of the label scheme).
    """

    name: str = "plain_unet"
    options: dict[str, Any] = field(default_factory=dict)
    head: Literal["labels", "regions"] = "labels"


@dataclass(frozen=True)
class PatchOptions:
    """How patches are drawn (``patches.sampling.Sampler``) and augmented.

    ``augment`` is a preset, ``augment_options`` changes its probabilities and ranges (``patches.presets``), and
    ``augment_own`` lists functions of one's own by dotted name or entry point, called after it (``patches.own``).

    ``foreground`` is the share of patches centred on a labelled voxel, which ``sampling`` chooses: of a class drawn
    evenly, of all labelled voxels, or of a lesion drawn evenly whatever its size. ``cases = "presence"`` draws the
    class before the case. ``within_mm`` above 0 keeps the centres of all patches that near to what is labelled.
    """

    foreground: float = 0.33
    sampling: Literal["class", "voxel", "lesion"] = "class"
    cases: Literal["uniform", "presence"] = "uniform"
    within_mm: float = 0.0
    augment: str = "default"
    augment_options: dict[str, Any] = field(default_factory=dict)
    augment_own: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingOptions:
    """The loop. The run ends at ``steps`` (or ``epochs`` of ``epoch_steps``) or when the budget is spent.

    ``optimizer``: "sgd", "adamw", "adam", or "auto", which decides it, the rate, weight decay, warm-up and ``ema`` by
    how many steps the run has, once, and says so (``training.optim.settled``).
    ``momentum`` is SGD's Nesterov momentum or Adam's beta1; below 0 it is the optimiser's usual one (0.99 and 0.9).
    ``schedule``: "poly", "cosine", "constant", or "plateau", which falls in the last ``cooldown`` share of the run only
    and is extended from where it began to fall. ``accumulate`` batches make one step. ``validation_cases`` held-out
    cases are segmented whole during training, in ``validation_share`` of its time; with ``patience`` (looks without
    a better true Dice end the run) or ``keep = "best"`` after every epoch. ``compile`` "auto" measures whether it pays
    where a run is long. ``track`` lists "tensorboard" and "mlflow".
    """

    steps: int = 250_000
    epoch_steps: int = 250
    epochs: int = 0
    budget: str = ""
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    weight_decay: float = 3e-5
    momentum: float = -1.0
    schedule: str = "poly"
    cooldown: float = 0.2
    warmup_steps: int = 0
    loss: str = "dice_ce"
    loss_options: dict[str, Any] = field(default_factory=dict)
    deep_supervision: bool = True
    ema: float = 0.0
    clip_norm: float = 12.0
    accumulate: int = 1
    validation_cases: int = 2
    validation_share: float = 0.05
    patience: int = 0
    keep: Literal["last", "best"] = "last"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    checkpoint_minutes: float = 5.0
    track: tuple[str, ...] = ()
    cost_per_hour: float = 0.0
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Where the run ends if no budget ends it before."""
        return self.epochs * self.epoch_steps if self.epochs else self.steps


@dataclass(frozen=True)
class InferenceOptions:
    """How scans are segmented with the trained model.

    ``region`` finds organs first and does only their boxes. Set it where that was validated for the model.
    ``mirror_axes`` are those along which copies are mirrored, counted from 0; empty means all.
    """

    overlap: float = 0.5
    mirror: bool = False
    region: bool = False
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class LocatorOptions:
    """A small network of its own that finds organs at low resolution, trained first; 0 mm means none.

    The network of the recipe then learns inside the organs' box and ``margin_mm`` around it, and segments there first
    (``hilum segment --whole`` does everything). The locator has ``budget_share`` of the budget, if there is one.
    """

    spacing_mm: float = 0.0
    patch: tuple[int, ...] = ()
    batch: int = 2
    base_features: int = 16
    steps: int = 5_000
    budget_share: float = 0.2
    margin_mm: float = 30.0


@dataclass(frozen=True)
class CascadeOptions:
    """A first network at low resolution, whose labels the recipe's own network is given as further channels.

    ``use`` is "never", "always", or "planned": where a patch covers less than a quarter of the median case, nnU-Net's
    rule, which also finds ``spacing_mm`` where that is empty. ``patch`` and ``batch`` are planned (or those of
    ``prepare``), and ``steps`` the recipe's own where they say nothing. All first networks have ``budget_share`` of the
    budget together.

    The network learns from labels of cases that their first network has not seen. ``out_of_fold`` "nested" trains one
    more for each other fold without that fold and without the one held out; "folds" one for each fold without it alone,
    as nnU-Net does, so that they have seen the cases held out. ``folder`` keeps them where the runs of other folds find
    them ("" is RUN/first).
    """

    use: Literal["never", "planned", "always"] = "never"
    spacing_mm: tuple[float, ...] = ()
    patch: tuple[int, ...] = ()
    batch: int = 0
    steps: int = 0
    budget_share: float = 0.5
    out_of_fold: Literal["nested", "folds"] = "nested"
    folder: str = ""


@dataclass(frozen=True)
class Recipe:
    """One run, whole.

    ``labels`` is a scheme's name or its table, or "" for what the data set itself says; ``postprocess`` a list of
    ``{step = name, ...}`` in order.
    """

    name: str = "own"
    description: str = ""
    labels: Any = ""
    data: DataOptions = DataOptions()
    prepare: PrepareOptions = PrepareOptions()
    network: NetworkOptions = NetworkOptions()
    locator: LocatorOptions = LocatorOptions()
    cascade: CascadeOptions = CascadeOptions()
    patches: PatchOptions = PatchOptions()
    training: TrainingOptions = TrainingOptions()
    inference: InferenceOptions = InferenceOptions()
    postprocess: tuple[dict[str, Any], ...] = ()

    @property
    def scheme(self) -> LabelScheme:
        """The label scheme that ``labels`` names or describes.

        Raises:
            RecipeError: it says nothing, and no data set has filled it in (``with_labels``).
        """
        if not self.labels:
            raise RecipeError(
                f"recipe {self.name!r} does not say what the labels mean, nor do the data",
                wanted=f"a label scheme: one of {sorted(SCHEMES)}, or a table of your own",
                fix="add --set labels=lits, or a [labels] table with values = { liver = 1, tumour = 2 }",
            )
        return scheme_from(self.labels)
