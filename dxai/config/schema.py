"""The settings of a run: one class for each block of params.yaml.

Defaults are the paper's values. params.yaml itself names every setting of a stage, so that DVC sees
it; the profiles (`dxai.config.profiles`) say where they differ from the paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from dxai.config.settings import ParamsError, Settings, choose, parse

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
"""The valid `methods`: the rows of Table 1 besides the decomposition and its controls."""

JOINT = "joint"
"""The `arch` of a classifier that is the discriminator of the decomposition's own run (C = D)."""
FROM_FILE = ("torch.export", "torchscript")
"""Values of `arch` that take the whole network from the file `weights`."""
BUILT_IN = "dxai/models/classifiers.py"
"""The file of the built-in networks."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""Names that DVC takes in the name of a stage, and a file system in that of a folder."""

NOT_QUOTED = re.compile(r"""[$`"\\\x00-\x1f\x7f-\x9f]""")
"""Characters that double quotes do not protect in a shell, as in the commands of dvc.yaml."""

SMALLEST = 8
"""The side of the smallest images that the discriminator takes, pixels."""
DEVICES = "auto|cpu|cuda(:[0-9]+)?"
"""Pattern of the devices that a setting may name; `auto` is a GPU where there is one."""

S = TypeVar("S", bound=Settings)


def check_entry_name(where: str, name: str) -> str:
    """Return the name of an entry; raise a `ParamsError` unless DVC and file names can hold it."""
    if not NAME.fullmatch(name):
        raise ParamsError(
            f"{where}: the name {name!r} must start with a letter and have at most 64 letters of "
            "a-z, A-Z, digits, _ and -"
        )
    return name


class DatasetParams(Settings):
    """An entry of `datasets`: where raw images are and how they are laid out."""

    layout: str = Field(
        description="How the raw images are laid out.\n"
        "One of afhq, brats, celeba, dota, folder, fruits360, noise, textures."
    )
    source: str = Field(
        description="Folder or URL of the raw images; `sample`: a small drawn set.\n"
        "URLs are those of fsspec (`s3://bucket/prefix`); `~` and `$NAME` are expanded."
    )
    channels: int = Field(3, description="1 (gray) or 3 (RGB).")
    options: dict[str, Any] = Field({}, description="Options of the layout.")
    encoding: Literal["png", "jpeg"] = Field(
        "png",
        description="How prepared images are stored.\n"
        "JPEG is lossy and takes about a quarter of the bytes.",
    )
    release: Literal["paper"] | None = Field(
        None,
        description="Declares the source to be the release that the paper used.\n"
        "The numbers of images are then compared with Table 5.",
    )
    overrides: dict[str, dict[str, Any]] = Field(
        {},
        description="Per-dataset settings of the stages `classifier` and `decompose`.\n"
        "A mapping of stage to those settings that replace the ones below.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage in self.overrides:
            choose("overrides", stage, ("classifier", "decompose"))
        if self.channels not in (1, 3):
            raise ParamsError(f"channels is {self.channels}; valid are 1 (gray) and 3 (RGB)")
        folder, table = split_table(self.source)
        if table and self.layout == "folder":
            raise ParamsError(
                f"source is {self.source}, and changes of its images would go unnoticed; set "
                f"source: {folder or 'its folder'} and options: {{table: {table}}}, or run `dxai "
                "use`, which does"
            )
        if table:
            raise ParamsError(
                f"source is {self.source}; only the layout folder reads a CSV file, name the folder"
            )
        return self


def split_table(source: str) -> tuple[str, str]:
    """Split a source that ends with a CSV file into its folder and that file, else ``""``."""
    if not source.lower().endswith(".csv"):
        return source, ""
    folder, slash, table = source.rpartition("/")
    return folder or slash, table


def _require_watchable(where: str, files: Iterable[str]) -> None:
    """Raise a `ParamsError` unless DVC can watch the files and name them in a shell command."""
    for file in files:
        if "@" in file:
            raise ParamsError(f"{where} names {file}; DVC allows no @ in it, so rename the file")
        if odd := NOT_QUOTED.search(file):
            raise ParamsError(
                f"{where} names {file!r}; a shell would not read its {odd[0]!r} as it stands, so "
                "rename the file"
            )
        if ".." in Path(file).parts:
            raise ParamsError(f"{where} names {file}; make a link to it within the project")


class ClassifierSpec(Settings):
    """An entry of `classifiers` or `joint`: the network that is explained."""

    arch: str = Field(
        description="Architecture, or `package.module:name` of your own torch module.\n"
        "A key of `dxai.models.classifiers.CLASSIFIERS`, `joint` (C = D), the import path of a "
        "`torch.nn.Module` or of a function that returns one, or `torch.export` or `torchscript` "
        "with such a file as `weights`."
    )
    options: dict[str, Any] = Field({}, description="Keyword arguments of the constructor.")
    weights: str | None = Field(
        None,
        description="File with trained weights; empty: the network is trained here.\n"
        "A state dict of `torch.save`, plain or wrapped; `.safetensors`; or the file of "
        "`torch.export` or TorchScript.",
    )
    value_range: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Value range of images that the network expects, before `mean` and `std`.\n"
        "null: [-1, 1], or [0, 1] if `mean` or `std` is given.",
    )
    mean: list[float] | None = Field(
        None,
        min_length=1,
        description="Mean of each channel, subtracted; in the units of `value_range`.",
    )
    std: list[float] | None = Field(
        None,
        min_length=1,
        description="Deviation of each channel, divided by; in the units of `value_range`.",
    )
    size: int | None = Field(
        None,
        gt=0,
        description="Side to which images are resized before the network, pixels; null: as is.",
    )
    class_names: list[str] | None = Field(
        None,
        min_length=1,
        description="Classes in the network's order; null: the dataset's order.\n"
        "Matched by name with those of the dataset.",
    )
    field: str | int | None = Field(
        None,
        description="Field of the network's result that holds the logits.\n"
        "null: the tensor itself, `.logits`, or the only tensor of shape (B, classes).",
    )
    outputs: list[int] | None = Field(
        None,
        min_length=1,
        description="Index of the logit of each class; null: all of them, in order.\n"
        "In the dataset's order, or in that of `class_names`. With two classes, one index stands "
        "for a single logit z of the second class, taken as (-z/2, z/2).",
    )
    activation: Literal["none", "softmax", "sigmoid"] = Field(
        "none", description="Activation that the network applies to its logits; it is undone."
    )
    train: bool | None = Field(
        None,
        description="Whether the network is trained here.\n"
        "null: unless `weights` is given; false: it is taken as it is, for a function that brings "
        "its own weights.",
    )
    twin: bool | str = Field(
        True,
        description="The twin that scores `auc_transfer`: trained here, none, or its weights.\n"
        "true: the same architecture, trained here from new weights; false: none; or the path of "
        "its weights.",
    )
    files: list[str] = Field(
        [],
        description="Files that the network comes from; stages rerun when they change.\n"
        "Its weights, the twin's, and your module or package. `dxai use` fills it.",
    )
    overrides: dict[str, dict[str, Any]] = Field(
        {},
        description="Per-classifier settings of the stage `decompose`.\n"
        "A mapping of the stage to those settings that replace the ones below.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage in self.overrides:
            choose("overrides", stage, ("decompose",))
        if "value_range" in self.options:
            raise ParamsError(
                "options.value_range is now value_range, beside options; `dxai use` converts it"
            )
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ParamsError(f"value_range is {self.value_range}; it must be [low, high]")
        if self.std is not None and min(self.std) <= 0:
            raise ParamsError(f"std is {self.std}; each must be above 0")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise ParamsError(f"mean has {len(self.mean)} values and std {len(self.std)}")
        for name in ("class_names", "outputs", "files"):
            values: list[Any] = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise ParamsError(f"{name} is {values}; each must be there once")
        if self.outputs is not None and min(self.outputs) < 0:
            raise ParamsError(f"outputs is {self.outputs}; indices count from 0")
        _require_watchable("files", self.files)
        if self.arch in FROM_FILE and self.weights is None:
            raise ParamsError(f"weights is empty; arch {self.arch} needs the file to load")
        if self.train and self.weights is not None:
            raise ParamsError("train is true although weights are given; leave one out")
        if self.train is False and self.weights is None and ":" not in self.arch:
            raise ParamsError(
                f"train is false, but arch {self.arch} brings no weights; set weights"
            )
        if self.arch == JOINT:
            kept = {"arch", "options", "overrides"}
            for name, field in type(self).model_fields.items():
                if name not in kept and getattr(self, name) != field.default:
                    raise ParamsError(f"{name} has no use with arch joint; leave it out")
        return self

    @property
    def trained_here(self) -> bool:
        """Return whether the stage `classifier` trains the network."""
        return self.weights is None if self.train is None else self.train

    @property
    def expected_range(self) -> tuple[float, float]:
        """Return the range of images that the network expects, before `mean` and `std`."""
        if self.value_range is None:
            return (-1.0, 1.0) if self.mean is None and self.std is None else (0.0, 1.0)
        low, high = self.value_range
        return float(low), float(high)

    def sources(self, folder: Path) -> list[str]:
        """List the files that the network comes from: weights, and modules that lie in `folder`."""
        found = [path for path in (self.weights, self.twin) if isinstance(path, str)]
        package = self.arch.partition(":")[0].partition(".")[0] if ":" in self.arch else ""
        candidates = [package, f"{package}.py"] if package else []
        return found + [name for name in candidates if (folder / name).exists()][:1]


class RepeatParams(Settings):
    """Further seeds for some of the classifiers: for intervals over seeds, and Table 4."""

    classifiers: list[str] = Field([], description="Names from `classifiers`.")
    seeds: list[int] = Field(
        [], description="Seeds of the decomposition in addition to the `seeds` of the run."
    )


class AblationParams(Settings):
    """Decompositions with one setting changed, to show its effect (Figs. 6, 12 and 14)."""

    datasets: list[str] = Field([], description="Names from `datasets`.")
    classifiers: list[str] = Field(
        [], description="Names from `classifiers`, explained with the first seed."
    )
    variants: dict[str, dict[str, Any]] = Field(
        {}, description="Name of an ablation: the settings of `decompose` that it changes."
    )


class PrepareParams(Settings):
    """The stage `prepare`: from raw images to Parquet shards."""

    image_size: int = Field(256, gt=0, description="Side of the square images, pixels.")
    shard_mb: int = Field(128, gt=0, description="MiB of images at which a Parquet shard is full.")
    duplicates: Literal["report", "drop", "refuse"] = Field(
        "report",
        description="Handling of files in two splits or classes.\n"
        "`drop` removes one from the split that is not the test set, and within a split from the "
        "class that is later in the alphabet; `refuse` is an error.",
    )


class AugmentParams(Settings):
    """Random changes of images, drawn anew for each image and step."""

    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Smallest side of a random crop, as a share of the image's.\n"
        "The crop is a square, enlarged to the image's size; 1: none.",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest change of brightness, contrast and saturation.\n"
        "Brightness moves by up to this (images span [-1, 1]); the others change by a factor drawn "
        "from [1 - jitter, 1 + jitter].",
    )
    blur: float = Field(
        0.0,
        ge=0,
        description="Largest deviation of a Gaussian blur of half of the images, pixels.",
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="Largest deviation of the white noise added to images.\n"
        "The deviation is drawn per image from [0, noise] (images span [-1, 1]). Without it a "
        "network trained on few images learns to follow patterns too faint to see.",
    )


class ClassifierParams(AugmentParams):
    """How classifiers are trained."""

    epochs: int = Field(30, gt=0, description="Maximum number of passes over the training images.")
    patience: int = Field(
        5, gt=0, description="Epochs without a better validation accuracy before it stops."
    )
    batch_size: int = Field(32, gt=0, description="Images per step.")
    lr: float = Field(
        1e-4, gt=0, description="Learning rate of AdamW; it falls to zero along a cosine."
    )
    weight_decay: float = Field(1e-4, description="Weight decay of AdamW.")
    flip: bool = Field(True, description="Mirror half of the training images.")
    contrast: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest reduction of the contrast of training images.\n"
        "Each is multiplied by a factor drawn from [1 - contrast, 1], which moves it towards "
        "mid-gray, as removing w x does.",
    )
    seed: int = Field(
        0, description="Seed of weights, order and augmentation; the twin has another."
    )


class DecomposeParams(Settings):
    """The decomposition: networks, losses, optimiser (Sections 3 and C)."""

    steps: int = Field(300_000, gt=0, description="Optimiser steps.")
    batch_size: int = Field(8, gt=0, description="Real images per step.")
    flip: bool = Field(True, description="Mirror half of the training images.")
    branches: int = Field(
        5, ge=2, description="Branches n of Eq. 3; the first is the class-distinct one."
    )
    branch_width: int = Field(
        7, gt=0, description="Channels of a branch at full resolution; doubled at each halving."
    )
    branch_max_width: int = Field(64, gt=0, description="Maximum number of channels of a branch.")
    coarsest: int = Field(
        16,
        gt=0,
        description="Smallest side of the coarsest feature map, pixels.\n"
        "Images are halved while it is at least this, and padded inside where needed.",
    )
    agnostic_skip: bool = Field(
        False,
        description="Add x / (n - 1) to each class-agnostic branch.\n"
        "The last layer of such a branch then starts small.",
    )
    normalise_input: bool = Field(
        False,
        description="Instance-normalise the input image.\n"
        "As in the authors' code; global colour is lost.",
    )
    last_norm: bool = Field(
        True,
        description="Instance-normalise the features before the last layer.\n"
        "As in the paper; without it their level and contrast reach the image.",
    )
    padding: Literal["zeros", "replicate"] = Field(
        "zeros", description="Border of the generator's convolutions."
    )
    upsampling: Literal["nearest", "bilinear"] = Field(
        "nearest", description="How the generator's decoder enlarges features."
    )
    style_dim: int = Field(64, gt=0, description="Size of the style vector.")
    latent_dim: int = Field(16, gt=0, description="Size of the latent z.")
    mapping_width: int = Field(
        512, gt=0, description="Width of the mapping network's hidden layers."
    )
    discriminator_width: int = Field(
        0, description="Channels of the stem; 0: min(512, 16384 / image_size)."
    )
    discriminator_heads: Literal["class", "single"] = Field(
        "class",
        description="Real/fake outputs of the discriminator.\n"
        "One per class, as in the paper, or a single one.",
    )
    alpha_per: Literal["batch", "image"] = Field(
        "batch", description="What shares one alpha of Eq. 5."
    )
    zero_distinction: bool = Field(
        True, description="Blend the other class without its class-distinct branch."
    )
    exact_agnostic: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of images whose blend of the other class is x - beta psi_1.",
    )
    exact_beta: float = Field(
        1.0, gt=0, le=1, description="Smallest beta of these images; the largest is 1."
    )
    lambda_adv: float = Field(2.0, description="Weight of the adversarial loss (Eq. 14).")
    lambda_kld: float = Field(1.0, description="Weight of the KL divergence of C and D (Eq. 14).")
    kld_direction: Literal["d_c", "c_d"] = Field(
        "d_c", description="KL(D||C), as printed in Eq. 11, or KL(C||D)."
    )
    lambda_class: float = Field(2.0, description="Weight of the classification loss (Eq. 14).")
    lambda_rec: float = Field(4.0, description="Weight of the reconstruction loss (Eq. 14).")
    lambda_dis_rec: float = Field(
        4.0, description="Weight of the class-distinct reconstruction loss (Eq. 14)."
    )
    dis_rec_over: Literal["image", "batch"] = Field(
        "image", description="Over what the mask of Eq. 12 is normalised."
    )
    lambda_agnostic_rec: float = Field(
        0.0, description="Weight of the reconstruction loss with psi_1 detached."
    )
    lambda_neutral: float = Field(
        0.0, description="Weight of the cross-entropy of C(x - psi_1) to uniform (Def. 1)."
    )
    r1: float = Field(1.0, description="Weight of the R1 penalty.")
    r1_every: int = Field(
        1, gt=0, description="Steps between two R1 penalties, each rescaled by this number."
    )
    lr: float = Field(1e-4, gt=0, description="Learning rate of Adam.")
    lr_mapping: float = Field(1e-6, description="Learning rate of the mapping network.")
    weight_decay: float = Field(1e-4, description="Weight decay of Adam.")
    beta1: float = Field(0.0, description="First beta of Adam.")
    beta2: float = Field(0.99, description="Second beta of Adam.")
    ema: float = Field(0.999, description="Decay of the average of the weights that is kept.")
    ema_warmup: bool = Field(False, description="Use min(ema, (1 + t) / (10 + t)) instead.")
    checkpoint_every: int = Field(1000, gt=0, description="Steps between two checkpoints.")
    log_every: int = Field(100, gt=0, description="Steps between two log lines.")
    panel_every: int = Field(5000, gt=0, description="Steps between two sample panels.")
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="Precision of the networks.\n"
        "Weights, losses and the R1 penalty are always float32.",
    )
    compile: bool = Field(
        False,
        description="Compile the generator (`torch.compile`).\n"
        "This takes a C++ compiler and about a minute.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lambda_kld and self.discriminator_heads == "single":
            raise ParamsError("lambda_kld needs discriminator_heads: class (or set it to 0)")
        return self


class TrainingParams(Settings):
    """Where and how safely both trainings run; the numbers do not depend on it.

    More workers share each batch, so that the result is the same up to rounding.
    """

    executor: Literal["ray", "local"] = Field(
        "ray",
        description="Where it runs.\n"
        "On Ray: on the cluster that RAY_ADDRESS names, else on one started on this machine. "
        "`local`: in the stage's own process.",
    )
    workers: int = Field(
        1, gt=0, description="Processes that share a batch, whose size they must divide."
    )
    cpus_per_worker: int = Field(2, gt=0, description="Threads of a worker, reserved in Ray.")
    gpus_per_worker: float = Field(
        1.0, gt=0, description="GPUs reserved in Ray for a worker, where there are any."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Device of the trainings.\n"
        "`auto` takes a GPU wherever there are enough of them.",
    )
    placement: Literal["PACK", "SPREAD"] = Field(
        "PACK", description="Workers on few nodes, or on as many as possible."
    )
    deterministic: bool = Field(True, description="Use deterministic algorithms on a GPU.")
    storage: str = Field(
        ".work/checkpoints",
        min_length=1,
        description="Folder or URL of the checkpoints.\n"
        "On a cluster, a folder that all nodes share, or a URL (`s3://bucket/prefix`), from which "
        "the workers then read the data as well.",
    )
    keep: int = Field(2, gt=0, description="Checkpoints kept in addition to the best one.")
    failures: int = Field(3, ge=0, description="Restarts after a worker or the cluster was lost.")
    hang_seconds: float = Field(
        300.0, gt=0, description="Silence after which a training is ended and started again."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.executor == "local" and self.workers > 1:
            raise ParamsError(f"workers is {self.workers}; executor local has 1")
        return self


class EvaluateParams(Settings):
    """How methods are scored."""

    images: int = Field(
        0, description="Number of test images scored, spread over the split; 0: all."
    )
    batch_size: int = Field(32, gt=0, description="Images per forward pass.")
    beta_steps: int = Field(10, gt=0, description="Steps of beta from 0 to 1 (Table 1: 10).")
    bootstrap: int = Field(2000, gt=0, description="Resamples behind every 95% interval.")
    latents: int = Field(
        1, gt=0, description="Latents z per image, whose decompositions are averaged."
    )
    uncertainty: int = Field(8, description="Latents z per image for the spread of psi_1; 0: none.")
    smooth: int = Field(
        8, ge=0, description="Noises over which `auc_smooth` averages the classifier; 0: none."
    )
    deletion_fill: float = Field(
        0.0, ge=-1, le=1, description="Value of a deleted pixel (Table 2); -1 is black, 1 white."
    )
    valid_auc: float = Field(
        0.85,
        ge=0,
        le=1,
        description="Least AUC of Random (Table 1) for a valid classifier; 0: all are.\n"
        "Of its two rows the lower counts. A classifier below it is brittle: its numbers are "
        "shown, and nothing is claimed of them.",
    )
    maps: Literal["float32", "float16", "none"] = Field(
        "float32",
        description="How the maps of all images are kept.\n"
        "In half the space as float16; with `none` the report has no heatmaps. The part that Table "
        "3 scores, psi_1 of ours, is always kept in float32.",
    )
    seed: int = Field(0, description="Seed of the latents, of all methods and of the resampling.")
    device: str = Field(
        "auto",
        description="Device of explanations and scores: auto, cpu, cuda or cuda:N.\n"
        "`auto` takes a GPU where there is one; its numbers differ from the CPU's by rounding.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.uncertainty == 1 or self.uncertainty < 0:
            raise ParamsError(f"uncertainty is {self.uncertainty}; it must be 0, or 2 or more")
        if not re.fullmatch(DEVICES, self.device):
            raise ParamsError(f"device is {self.device!r}; valid are auto, cpu, cuda, cuda:N")
        return self


class EvaluationParams(Settings):
    """Where methods are scored; the numbers do not depend on it."""

    executor: Literal["local", "ray"] = Field(
        "local",
        description="Where the scoring runs.\n"
        "Of every stage that explains images. `local`: in the stage's own process. On Ray: on the "
        "cluster that RAY_ADDRESS names, else on one started on this machine, unless the work is "
        "over before that would be; raw images of 256 MiB or more are read there, too. All nodes "
        "must see the project's folder, and raw images where `source` says.",
    )
    workers: int = Field(2, gt=0, description="Actors, each with the networks and a batch.")
    cpus_per_worker: int = Field(1, gt=0, description="Threads of an actor, reserved in Ray.")
    gpus_per_worker: float = Field(
        1.0, ge=0, description="GPUs reserved in Ray for an actor, where there are any."
    )
    failures: int = Field(3, ge=0, description="Restarts after an actor or the cluster was lost.")


class LeakageParams(Settings):
    """The leakage probe: a fresh network that tells the class from class-agnostic images."""

    images: int = Field(
        1000,
        ge=0,
        description="Training images that each method explains; 0: no probe.\n"
        "Spread evenly over the classes and over the split.",
    )
    test_images: int = Field(
        0, ge=0, description="Test images it is tested on, spread likewise; 0: all."
    )
    epochs: int = Field(20, gt=0, description="Passes of the probe over the training images.")
    heatmap: str = Field(
        "ig",
        description="Heatmap method probed beside ours, if it is in `methods`.\n"
        "Named before anything is measured, so that nothing is chosen on test images. `naive`, if "
        "it is in `methods`, is probed as well.",
    )


class RandomisationParams(Settings):
    """The model randomisation test: explanations of a classifier whose weights are random."""

    images: int = Field(
        100,
        ge=0,
        description="Test images whose maps are compared; 0: no test.\n"
        "Spread evenly over the split.",
    )
    depths: int = Field(
        4,
        gt=0,
        description="Depths at which heatmaps are compared.\n"
        "Layers are drawn anew from the top, evenly many more at each depth, and all at the last.",
    )
    steps: int | None = Field(
        None,
        ge=0,
        description="Steps of both short trainings of ours; 0: none.\n"
        "null: a fifth of `decompose.steps`.",
    )


class Params(Settings):
    """Everything in params.yaml."""

    profile: str = Field(description="The profile that the values come from.")
    seeds: list[int] = Field(description="Seeds of the decomposition, for every classifier.")
    network_files: list[str] = Field(
        [BUILT_IN],
        description="Files of all `classifiers`; `dxai use` lists them.\n"
        "The stage `network` watches each of them for each classifier. The first one, with the "
        "built-in networks, is always there.",
    )
    repeat: RepeatParams = Field(
        RepeatParams(), description="Further seeds for some of the classifiers."
    )
    ablations: AblationParams = Field(
        AblationParams(), description="Decompositions with one setting changed."
    )
    datasets: dict[str, DatasetParams] = Field(description="The images.")
    classifiers: dict[str, ClassifierSpec] = Field(description="The networks to be explained.")
    joint: dict[str, ClassifierSpec] = Field(
        description="Classifiers that are the decomposition's own discriminator (C = D).\n"
        "The stage `decompose` trains them, so their baselines depend on it."
    )
    methods: dict[str, dict[str, Any]] = Field(
        description="Baselines in Table 1, each with its own settings."
    )
    prepare: PrepareParams = Field(
        PrepareParams(), description="From raw images to Parquet shards."
    )
    classifier: ClassifierParams = Field(
        ClassifierParams(), description="How classifiers are trained."
    )
    decompose: DecomposeParams = Field(
        DecomposeParams(), description="The decomposition: networks, losses, optimiser."
    )
    training: TrainingParams = Field(
        TrainingParams(), description="Where trainings run; the numbers do not depend on it."
    )
    evaluate: EvaluateParams = Field(EvaluateParams(), description="How methods are scored.")
    evaluation: EvaluationParams = Field(
        EvaluationParams(), description="Where methods are scored; the numbers do not depend on it."
    )
    leakage: LeakageParams = Field(
        LeakageParams(), description="What class-agnostic images still say about the class."
    )
    randomisation: RandomisationParams = Field(
        RandomisationParams(),
        description="What is left of the explanations when the weights are random.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for where, seeds in (("seeds", self.seeds), ("repeat.seeds", self.repeat.seeds)):
            if seeds and min(seeds) < 0:
                raise ParamsError(f"{where} has {min(seeds)}; a seed is 0 or more")
        for name in ("seeds", "datasets", "methods"):
            if not getattr(self, name):
                raise ParamsError(f"{name} is empty; name at least one")
        if not self.explained:
            raise ParamsError("classifiers is empty, and so is joint; name at least one")
        _require_watchable("network_files", self.network_files)
        for where in ("datasets", "classifiers", "joint"):
            for name in getattr(self, where):
                check_entry_name(where, name)
        stages: dict[str, tuple[str, str]] = {}
        for pair in product(self.datasets, self.explained):
            other = stages.setdefault("-".join(pair), pair)
            if other != pair:
                raise ParamsError(
                    f"dataset {pair[0]} with classifier {pair[1]}, and dataset {other[0]} with "
                    f"classifier {other[1]}, have the stages *@{'-'.join(pair)}; rename one of them"
                )
        for where, is_joint in (("classifiers", False), ("joint", True)):
            for name, spec in getattr(self, where).items():
                if (spec.arch == JOINT) is not is_joint:
                    proper = "joint" if spec.arch == JOINT else "classifiers"
                    raise ParamsError(f"{where}.{name} has arch {spec.arch}; put it in {proper}")
        for where, names, valid in (
            ("methods", self.methods, METHODS),
            ("leakage.heatmap", [self.leakage.heatmap], [m for m in METHODS if m != "naive"]),
            ("repeat.classifiers", self.repeat.classifiers, self.classifiers),
            ("ablations.datasets", self.ablations.datasets, self.datasets),
            ("ablations.classifiers", self.ablations.classifiers, self.classifiers),
        ):
            for name in names:
                choose(where, name, valid)
        if twice := set(self.seeds) & set(self.repeat.seeds):
            raise ParamsError(f"repeat.seeds has {min(twice)}, which seeds has already")
        for name in self.ablations.variants:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ParamsError(
                    f"ablations.variants has {name!r}; it takes letters, digits and _, "
                    "and starts with a letter"
                )
        if self.prepare.image_size < SMALLEST:
            raise ParamsError(
                f"prepare.image_size is {self.prepare.image_size}; it must be at least {SMALLEST}"
            )
        cases: list[tuple[str, str | None]] = [(name, None) for name in self.explained]
        cases += product(self.ablations.classifiers, self.ablations.variants)
        for name in self.datasets:
            decompositions = [self.decompose_for(name, *case) for case in cases]
            for decompose in decompositions:
                if decompose.coarsest > self.prepare.image_size:
                    raise ParamsError(
                        f"decompose.coarsest is {decompose.coarsest}; it must be at most "
                        f"prepare.image_size ({self.prepare.image_size})"
                    )
            sizes = [self.classifier_for(name).batch_size]
            sizes += [decompose.batch_size for decompose in decompositions]
            for size in sizes:
                if size % self.training.workers:
                    raise ParamsError(
                        f"training.workers is {self.training.workers}; it must divide both "
                        f"batch sizes, of which one is {size}"
                    )
        return self

    @property
    def explained(self) -> dict[str, ClassifierSpec]:
        """Return every explained classifier, frozen or joint."""
        return {**self.classifiers, **self.joint}

    @property
    def modules(self) -> list[str]:
        """Return the import paths of the user's classifiers."""
        return [spec.arch for spec in self.classifiers.values() if ":" in spec.arch]

    def dataset(self, name: str) -> DatasetParams:
        return self.datasets[choose("dataset", name, self.datasets)]

    def classifier_for(self, dataset: str) -> ClassifierParams:
        """Return the settings for training a classifier of this dataset."""
        return self._overridden(ClassifierParams, "classifier", dataset)

    def decompose_for(
        self, dataset: str, classifier: str, variant: str | None = None
    ) -> DecomposeParams:
        """Return the settings for training a decomposition, with all overrides applied."""
        spec = self.classifier_spec(classifier)
        further = [(f"classifiers.{classifier}.overrides.decompose", spec.overrides)]
        if variant is not None:
            choose("ablation", variant, self.ablations.variants)
            changed = {"decompose": self.ablations.variants[variant]}
            further.append((f"ablations.variants.{variant}", changed))
        return self._overridden(DecomposeParams, "decompose", dataset, further)

    def randomisation_steps(self, dataset: str, classifier: str) -> int:
        """Return the number of steps of both short trainings of the stage `randomisation`."""
        steps = self.randomisation.steps
        return self.decompose_for(dataset, classifier).steps // 5 if steps is None else steps

    def seeds_of(self, classifier: str) -> list[int]:
        """Return every seed of this classifier's decompositions, in order."""
        further = self.repeat.seeds if classifier in self.repeat.classifiers else []
        return [*self.seeds, *further]

    def variants_of(self, dataset: str, classifier: str) -> list[str]:
        """Return the names of the ablations of this dataset and classifier."""
        wanted = self.ablations
        chosen = dataset in wanted.datasets and classifier in wanted.classifiers
        return list(wanted.variants) if chosen else []

    def decomposition(
        self, dataset: str, classifier: str, name: str
    ) -> tuple[DecomposeParams, int]:
        if name.isdigit():
            return self.decompose_for(dataset, classifier), int(name)
        return self.decompose_for(dataset, classifier, name), self.seeds[0]

    def _overridden(
        self,
        kind: type[S],
        stage: str,
        dataset: str,
        further: Iterable[tuple[str, dict[str, dict[str, Any]]]] = (),
    ) -> S:
        settings = getattr(self, stage)
        first = (f"datasets.{dataset}.overrides.{stage}", self.dataset(dataset).overrides)
        for where, overrides in (first, *further):
            merged = dict(settings) | overrides.get(stage, {})
            settings = parse(kind, merged, where)
        return settings

    def classifier_spec(self, name: str) -> ClassifierSpec:
        return self.explained[choose("classifier", name, self.explained)]
