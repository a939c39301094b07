"""The settings of a run: frozen dataclasses that mirror the `run` block of params.yaml.

Defaults are the paper's values. params.yaml itself must name every key, so that DVC sees every
value; a missing, unknown or badly typed key is a `ParamsError` that names it and the valid choices.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

METHODS = (
    "lrp",
    "ig",
    "gradient_shap",
    "internal_influence",
    "guided_gradcam",
    "gradcam",
    "lime",
    "random",
    "naive",
)
"""What `run.methods` may name: the rows beside ours, which always runs, with its two controls."""


JOINT = "joint"
"""The `arch` of a classifier that is the discriminator of the decomposition's own run (C = D)."""


T = TypeVar("T")
OPTIONAL = {"optional": True}
"""Metadata of a field that params.yaml may leave out: DVC tracks the mapping that it stands in."""


class ParamsError(ValueError):
    """A setting that cannot be used; the message names it and the valid choices."""


@dataclass(frozen=True)
class DatasetParams:
    """One entry of `datasets`: where raw images are and how they are laid out.

    Attributes
    ----------
    layout : str
        A key of `dxai.datasets.registry.LAYOUTS`.
    source : str
        The folder or file that the images come from, a path or an fsspec URL (`s3://..`); `~` and
        `$NAME` are expanded. `sample`: a small set that the layout draws.
    channels : int
        1 (gray) or 3 (RGB).
    options : dict
        What the layout takes besides; each layout documents its own.
    encoding : {'png', 'jpeg'}
        How images are stored: lossless, or in about a quarter of the bytes.
    release : {'paper'} or None
        Declares that the source is the release that the paper used: the numbers of images are then
        compared with Table 5.
    overrides : dict
        What this dataset needs otherwise than the profile: `classifier` and `decompose`, each a
        mapping of settings of that stage.
    """

    layout: str
    source: str
    channels: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    encoding: Literal["png", "jpeg"] = field(default="png", metadata=OPTIONAL)
    release: Literal["paper"] | None = field(default=None, metadata=OPTIONAL)
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for stage in self.overrides:
            choose("overrides", stage, ("classifier", "decompose"))
        if self.channels not in (1, 3):
            raise ParamsError(f"channels is {self.channels}; valid are 1 (gray) and 3 (RGB)")


@dataclass(frozen=True)
class ClassifierSpec:
    """One entry of `classifiers`: the network that is explained.

    Attributes
    ----------
    arch : str
        A key of `dxai.models.classifiers.CLASSIFIERS`, `joint`, or `package.module:name` of a
        user's own `torch.nn.Module` (or a function that returns one).
    options : dict
        Keyword arguments of the constructor.
    weights : str or None
        A file with trained weights; None trains the network here.
    overrides : dict
        What its decomposition needs otherwise than the profile: `decompose`, a mapping of settings.
    """

    arch: str
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for stage in self.overrides:
            choose("overrides", stage, ("decompose",))


@dataclass(frozen=True)
class PrepareParams:
    """Settings of the stage `prepare`.

    Attributes
    ----------
    image_size : int
        Side of the square images, pixels.
    shard_mb : int
        A Parquet shard is closed when it holds this many MiB of images.
    duplicates : {'report', 'drop', 'refuse'}
        What happens when two splits have the same file: it is reported, dropped from the split
        that is not the test set, or an error.
    """

    image_size: int = 256
    shard_mb: int = 128
    duplicates: Literal["report", "drop", "refuse"] = "report"

    def __post_init__(self) -> None:
        positive(self, "image_size", "shard_mb")


@dataclass(frozen=True)
class ClassifierParams:
    """How a classifier is trained.

    Attributes
    ----------
    epochs : int
        At most this many passes over the training images.
    patience : int
        Stop after this many epochs without a better validation accuracy.
    batch_size : int
        Images per step.
    lr, weight_decay : float
        Of AdamW; the learning rate falls to zero along a cosine.
    flip : bool
        Mirror half of the training images.
    noise : float
        Add white Gaussian noise to training images, its deviation drawn per image from
        [0, noise] (images span [-1, 1]). A network that sees few images otherwise learns to
        follow patterns too faint to see.
    contrast : float
        Multiply each training image by a factor from [1 - contrast, 1], which moves it towards
        mid-gray, as removing w x does. In [0, 1].
    seed : int
        Of weights, order and augmentation; the twin has another one.
    """

    epochs: int = 30
    patience: int = 5
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 1e-4
    flip: bool = True
    noise: float = 0.0
    contrast: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "epochs", "patience", "batch_size", "lr")
        if not 0 <= self.contrast <= 1:
            raise ParamsError(f"contrast is {self.contrast}; it must lie in [0, 1]")


@dataclass(frozen=True)
class DecomposeParams:
    """The decomposition: networks, losses, optimiser (Sections 3 and C of the paper).

    Attributes
    ----------
    steps, batch_size : int
        Optimiser steps, and real images in each.
    flip : bool
        Mirror half of the training images.
    branches : int
        n of Eq. 3; the first is the class-distinct one.
    branch_width, branch_max_width : int
        Channels of a branch at full resolution, doubling at each halving up to the second number.
    coarsest : int
        Side of the coarsest feature map, pixels.
    agnostic_skip : bool
        Add x / (n - 1) to each agnostic branch, whose last layer then starts small.
    normalise_input : bool
        Instance-normalise the input image, as the reference code does (it loses global colour).
    style_dim, latent_dim, mapping_width : int
        Size of the style vector, of z, and of the mapping network's hidden layers.
    discriminator_width : int
        Channels of the stem; 0 takes min(512, 16384 / image size).
    discriminator_heads : {'class', 'single'}
        One real/fake output a class (the paper), or one in all.
    alpha_per : {'batch', 'image'}
        Whether a batch shares one alpha of Eq. 5.
    zero_distinction : bool
        Blend the other class without its class-distinct branch.
    lambda_adv, lambda_kld, lambda_class, lambda_rec, lambda_dis_rec : float
        Weights of Eq. 14.
    kld_direction : {'d_c', 'c_d'}
        KL(D||C), as printed in Eq. 11, or KL(C||D).
    dis_rec_over : {'image', 'batch'}
        Over what the mask of Eq. 12 is normalised.
    lambda_neutral : float
        Weight of the cross-entropy of C(x - psi_1) to the uniform distribution (Definition 1).
    r1, r1_every : float, int
        Weight of the R1 penalty, and every how many steps it is taken (rescaled by that number).
    lr, lr_mapping, weight_decay, beta1, beta2 : float
        Of Adam.
    ema, ema_warmup : float, bool
        Decay of the weight average that is kept; with warm-up min(ema, (1 + t) / (10 + t)).
    checkpoint_every, log_every, panel_every : int
        Steps between two checkpoints, log lines, sample panels.
    precision : {'float32', 'bf16'}
        In which networks compute; weights, losses and the R1 penalty are float32 always.
    compile : bool
        Compile the generator (`torch.compile`), which takes a C++ compiler and a minute.
    """

    steps: int = 300_000
    batch_size: int = 8
    flip: bool = True
    branches: int = 5
    branch_width: int = 7
    branch_max_width: int = 64
    coarsest: int = 16
    agnostic_skip: bool = False
    normalise_input: bool = False
    style_dim: int = 64
    latent_dim: int = 16
    mapping_width: int = 512
    discriminator_width: int = 0
    discriminator_heads: Literal["class", "single"] = "class"
    alpha_per: Literal["batch", "image"] = "batch"
    zero_distinction: bool = True
    lambda_adv: float = 2.0
    lambda_kld: float = 1.0
    kld_direction: Literal["d_c", "c_d"] = "d_c"
    lambda_class: float = 2.0
    lambda_rec: float = 4.0
    lambda_dis_rec: float = 4.0
    dis_rec_over: Literal["image", "batch"] = "image"
    lambda_neutral: float = 0.0
    r1: float = 1.0
    r1_every: int = 1
    lr: float = 1e-4
    lr_mapping: float = 1e-6
    weight_decay: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.99
    ema: float = 0.999
    ema_warmup: bool = False
    checkpoint_every: int = 1000
    log_every: int = 100
    panel_every: int = 5000
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "branch_width", "branch_max_width", "coarsest")
        positive(self, "style_dim", "latent_dim", "mapping_width", "r1_every", "lr")
        positive(self, "checkpoint_every", "log_every", "panel_every")
        if self.branches < 2:
            raise ParamsError(f"branches is {self.branches}; it takes at least 2")
        if self.lambda_kld and self.discriminator_heads == "single":
            raise ParamsError("lambda_kld needs discriminator_heads: class (or set it to 0)")


@dataclass(frozen=True)
class TrainingParams:
    """Where and how safely both trainings run; the numbers do not depend on it.

    More workers share each batch, so that the result is the same up to rounding.

    Attributes
    ----------
    executor : {'ray', 'local'}
        On Ray: on the cluster that RAY_ADDRESS names, else on one started on this machine. Or in
        the stage's own process.
    workers : int
        How many share a batch; they must divide it.
    cpus_per_worker : int
        Threads of a worker, and what Ray reserves for it.
    gpus_per_worker : float
        What Ray reserves for it where the device is a GPU.
    device : {'auto', 'cpu', 'cuda'}
        `auto` is the GPU wherever there are enough of them.
    placement : {'PACK', 'SPREAD'}
        Workers on as few nodes as possible, or on as many.
    deterministic : bool
        On a GPU, use the deterministic one of several algorithms.
    storage : str
        Where checkpoints are kept: a folder (on a cluster, one that all nodes share) or a URL
        (`s3://bucket/prefix`), from which the workers then read the data, too.
    keep : int
        Checkpoints that stay, beside the best.
    failures : int
        How often a training is started again after a worker or the cluster was lost.
    hang_seconds : float
        A training that is silent for so long is ended and started again.
    """

    executor: Literal["ray", "local"] = "ray"
    workers: int = 1
    cpus_per_worker: int = 2
    gpus_per_worker: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    placement: Literal["PACK", "SPREAD"] = "PACK"
    deterministic: bool = True
    storage: str = ".work/checkpoints"
    keep: int = 2
    failures: int = 3
    hang_seconds: float = 300.0

    def __post_init__(self) -> None:
        positive(self, "workers", "cpus_per_worker", "gpus_per_worker", "keep", "hang_seconds")
        if self.failures < 0:
            raise ParamsError(f"failures is {self.failures}; it must not be below 0")
        if not self.storage:
            raise ParamsError("storage is empty; name a folder or a URL")
        if self.executor == "local" and self.workers > 1:
            raise ParamsError(f"workers is {self.workers}; executor local has 1")


@dataclass(frozen=True)
class EvaluateParams:
    """How methods are scored.

    Attributes
    ----------
    images : int
        Test images scored, drawn evenly over the split; 0 takes all.
    batch_size : int
        Images per forward pass.
    beta_steps : int
        Steps of beta between 0 and 1 (10: 0, 0.1 .. 1, as in Table 1).
    bootstrap : int
        Resamples behind every 95% interval.
    latents : int
        Styles drawn for an image, whose decompositions are averaged.
    uncertainty : int
        Styles drawn for an image to see how far its class-distinct part depends on them; 0: none.
    deletion_fill : float
        What a deleted pixel becomes in Table 2, in [-1, 1].
    seed : int
        Of the latents, of every method's draws, and of the resampling.
    """

    images: int = 0
    batch_size: int = 32
    beta_steps: int = 10
    bootstrap: int = 2000
    latents: int = 1
    uncertainty: int = 8
    deletion_fill: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "batch_size", "beta_steps", "bootstrap", "latents")
        if self.uncertainty == 1 or self.uncertainty < 0:
            raise ParamsError(f"uncertainty is {self.uncertainty}; it must be 0, or 2 or more")
        if not -1 <= self.deletion_fill <= 1:
            raise ParamsError(f"deletion_fill is {self.deletion_fill}; it must lie in [-1, 1]")


@dataclass(frozen=True)
class RepeatParams:
    """Which classifiers are explained with further seeds: for intervals over seeds, and Table 4.

    Attributes
    ----------
    classifiers : list of str
        Names from `classifiers`.
    seeds : list of int
        Seeds of the decomposition beside those of `run.seeds`.
    """

    classifiers: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class AblationParams:
    """Decompositions with something changed, to show what it is good for (Figs. 6, 12 and 14).

    Attributes
    ----------
    datasets, classifiers : list of str
        What they are trained on and explain, with the first seed; names from the run.
    variants : dict
        Name of an ablation to the settings of `decompose` that it changes.
    """

    datasets: list[str] = field(default_factory=list)
    classifiers: list[str] = field(default_factory=list)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Params:
    """The `run` block.

    Attributes
    ----------
    profile : str
        Name of the profile that the values come from.
    seeds : list of int
        Seeds of the decomposition, each of which is trained and scored for every classifier.
    repeat : RepeatParams
        Further seeds for some of the classifiers.
    datasets, classifiers : dict
        Name to settings.
    joint : dict
        Likewise, the classifiers that are the discriminator of the decomposition itself (C = D):
        they are trained by the stage `decompose`, on which their baselines therefore depend.
    methods : dict
        Rows of Table 1 beside ours, name to that method's own settings.
    ablations : AblationParams
        Decompositions with something changed.
    prepare, classifier, decompose, training, evaluate
        Settings of the stages.
    """

    profile: str
    seeds: list[int]
    repeat: RepeatParams
    datasets: dict[str, DatasetParams]
    classifiers: dict[str, ClassifierSpec]
    joint: dict[str, ClassifierSpec]
    methods: dict[str, dict[str, Any]]
    ablations: AblationParams
    prepare: PrepareParams
    classifier: ClassifierParams
    decompose: DecomposeParams
    training: TrainingParams
    evaluate: EvaluateParams

    def __post_init__(self) -> None:
        for name in ("seeds", "datasets", "methods"):
            if not getattr(self, name):
                raise ParamsError(f"run.{name} is empty; name at least one")
        if not self.explained:
            raise ParamsError("run.classifiers is empty, and so is run.joint; name at least one")
        for where, is_joint in (("classifiers", False), ("joint", True)):
            for name, spec in getattr(self, where).items():
                if (spec.arch == JOINT) is not is_joint:
                    proper = "run.joint" if spec.arch == JOINT else "run.classifiers"
                    raise ParamsError(
                        f"run.{where}.{name} has arch {spec.arch}; put it in {proper}"
                    )
        for method in self.methods:
            choose("run.methods", method, METHODS)
        for name in self.repeat.classifiers:
            choose("run.repeat.classifiers", name, self.classifiers)
        if twice := set(self.seeds) & set(self.repeat.seeds):
            raise ParamsError(f"run.repeat.seeds has {min(twice)}, which run.seeds has already")
        for name in self.ablations.datasets:
            choose("run.ablations.datasets", name, self.datasets)
        for name in self.ablations.classifiers:
            choose("run.ablations.classifiers", name, self.classifiers)
        for name in self.ablations.variants:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ParamsError(
                    f"run.ablations.variants has {name!r}; it takes letters, digits and _, "
                    "and starts with a letter"
                )
        for name in self.datasets:
            sizes = [self.classifier_for(name).batch_size]
            sizes += [self.decompose_for(name, c, v).batch_size for c, v in self._decompositions()]
            for size in sizes:
                if size % self.training.workers:
                    raise ParamsError(
                        f"run.training.workers is {self.training.workers}; it must divide both "
                        f"batch sizes, of which one is {size}"
                    )

    @property
    def explained(self) -> dict[str, ClassifierSpec]:
        """Every classifier that is explained, frozen or joint."""
        return {**self.classifiers, **self.joint}

    def dataset(self, name: str) -> DatasetParams:
        """The settings of one dataset of this run."""
        return self.datasets[choose("dataset", name, self.datasets)]

    def classifier_for(self, dataset: str) -> ClassifierParams:
        """How a classifier of this dataset is trained."""
        return self._overridden(ClassifierParams, "classifier", dataset)

    def decompose_for(
        self, dataset: str, classifier: str, variant: str | None = None
    ) -> DecomposeParams:
        """How a decomposition is trained: the profile, and what these change in it.

        Raises
        ------
        ParamsError
            For an unknown name, naming the valid ones.
        """
        spec = self.classifier_spec(classifier)
        further = [(f"run.classifiers.{classifier}.overrides.decompose", spec.overrides)]
        if variant is not None:
            choose("ablation", variant, self.ablations.variants)
            changed = {"decompose": self.ablations.variants[variant]}
            further.append((f"run.ablations.variants.{variant}", changed))
        return self._overridden(DecomposeParams, "decompose", dataset, further)

    def seeds_of(self, classifier: str) -> list[int]:
        """Every seed that this classifier is explained with, the first one first."""
        further = self.repeat.seeds if classifier in self.repeat.classifiers else []
        return [*self.seeds, *further]

    def variants_of(self, dataset: str, classifier: str) -> list[str]:
        """The ablations of this dataset and classifier."""
        wanted = self.ablations
        chosen = dataset in wanted.datasets and classifier in wanted.classifiers
        return list(wanted.variants) if chosen else []

    def decomposition(
        self, dataset: str, classifier: str, name: str
    ) -> tuple[DecomposeParams, int]:
        """Settings and seed of a decomposition, which goes by its seed or by its ablation."""
        if name.isdigit():
            return self.decompose_for(dataset, classifier), int(name)
        return self.decompose_for(dataset, classifier, name), self.seeds[0]

    def _decompositions(self) -> Iterator[tuple[str, str | None]]:
        for classifier in self.explained:
            yield classifier, None
        for classifier in self.ablations.classifiers:
            for variant in self.ablations.variants:
                yield classifier, variant

    def _overridden(
        self,
        kind: type[T],
        stage: str,
        dataset: str,
        further: Iterable[tuple[str, dict[str, dict[str, Any]]]] = (),
    ) -> T:
        settings = getattr(self, stage)
        first = (f"run.datasets.{dataset}.overrides.{stage}", self.dataset(dataset).overrides)
        for where, overrides in (first, *further):
            merged = dataclasses.asdict(settings) | overrides.get(stage, {})
            settings = parse(kind, merged, where)
        return settings

    def classifier_spec(self, name: str) -> ClassifierSpec:
        """The settings of one classifier of this run."""
        return self.explained[choose("classifier", name, self.explained)]


def choose(what: str, name: str, valid: typing.Iterable[str]) -> str:
    """`name` if it is one of `valid`, else a `ParamsError` that lists them."""
    if name not in valid:
        raise ParamsError(f"{what}: unknown {name!r}; valid are {', '.join(sorted(valid))}")
    return name


def positive(params: Any, *names: str) -> None:
    """Check that the named fields are above zero."""
    for name in names:
        if getattr(params, name) <= 0:
            raise ParamsError(f"{name} is {getattr(params, name)}; it must be above 0")


def parse(kind: type[T], value: Any, where: str, complete: bool = True) -> T:
    """Build the dataclass `kind` from a mapping, checking names and types.

    Parameters
    ----------
    kind : type
        A dataclass of this module.
    value : mapping
        What was read.
    where : str
        The dotted name of `value`, for messages.
    complete : bool
        Whether every field must be named.

    Raises
    ------
    ParamsError
        For an unknown, missing or badly typed key.
    """
    if not isinstance(value, dict):
        raise ParamsError(f"{where} is {value!r}; it must be a mapping")
    hints = typing.get_type_hints(kind)
    fields_of = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = {f.name for f in fields_of}
    for key in value:
        choose(where, key, names)
    missing = sorted(names - set(value) - {f.name for f in fields_of if f.metadata == OPTIONAL})
    if complete and missing:
        raise ParamsError(f"{where}: missing {', '.join(missing)}")
    fields = {key: _convert(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**fields)
    except ParamsError as error:
        raise ParamsError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        return choose(where, value, args)
    if origin is dict:
        if not isinstance(value, dict):
            raise ParamsError(f"{where} is {value!r}; it must be a mapping")
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{where} is {value!r}; it must be a list")
        return [_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin in (types.UnionType, typing.Union):  # Literal[..] | None is the latter
        return None if value is None else _convert(args[0], value, where)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ParamsError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check the `run` block of a params file."""
    path = Path(path)
    try:
        document = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(document, dict) or "run" not in document:
        raise ParamsError(f"{path}: missing run")
    return parse(Params, document["run"], "run")


def profile_names(path: Path | str = "params.yaml") -> list[str]:
    """Names of the profiles that a params file holds."""
    document = yaml.load(Path(path).read_text(), Loader=_Loader)
    return sorted(document.get("profiles", {}))


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-4 as a string; DVC's parser, and everybody else, reads a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)
