"""The typed configuration of a run: YAML in, checked values out, one clear line for every mistake.

Nothing here imports torch, so a wrong key is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from sparsecbm._errors import InputError, StoredFileError, suggest, unknown

MAX_CONFIG_BYTES = 1 << 20
"""A config is a page of text; anything larger is a mistake or an attack."""

_MAX_DEPTH = 20

# PyYAML's constructors raise ValueError for a date like 2001-13-45, TypeError and AttributeError for odd tags.
_YAML_ERRORS = (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError)

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Count = Annotated[int, Field(ge=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class ImagesConfig(_Section):
    """Where the pictures come from: `load_images(spec, split)` for train, validation and test."""

    spec: Name = "birds"
    """``birds[:HABITAT]``, ``hub:REPO[:CONFIG]``, ``folder:PATH`` or ``parquet:GLOB``."""
    splits: dict[Literal["train", "validation", "test"], Name] | None = None
    """Which official split serves as which; what is missing is carved from train, seeded and stratified."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of carved splits, subsets and painted pictures (kept apart from the training seed)."""
    max_train: Count | None = None
    max_validation: Count | None = None
    max_test: Count | None = None
    image_column: Name | None = None
    label_column: Name | None = None
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with a picture that cannot be decoded: stop and name it, or leave it out and count it."""


class EmbeddingsConfig(_Section):
    """Vectors made elsewhere, in place of pictures: `load_embeddings(path, split)`."""

    path: Name
    """.npz, .safetensors or .parquet with ``SPLIT_images`` and ``SPLIT_labels``."""
    train: Name = "train"
    validation: Name | None = None
    test: Name | None = "test"
    concepts: Name
    """.npz of the concept texts' embeddings in the same space."""
    concept_vectors: Name = "embeddings"
    """Array in `concepts` of shape (M, d)."""
    concept_names: Name = "names"
    """Array in `concepts` of M names."""
    encoder: Name | None = None
    """Spec of the encoder that made the vectors, taken on trust, so that the model can be used on pictures."""


class EncoderConfig(_Section):
    """The frozen encoder: `load_encoder(spec)`."""

    spec: Name = "bundled"
    batch_size: Count | None = None
    precision: Name = "auto"
    device: Name = "auto"
    cache: Literal["disk", "disk-or-memory", "memory"] = "disk"
    """Where embeddings are kept; ``disk-or-memory`` does without the disk where the cache cannot be written."""


CONCEPT_SOURCES = ("file", "names", "builtin")


class FiltersConfig(_Section):
    """Label-free concept filters; null leaves one out. The defaults are those of `ConceptSet.filter`."""

    max_length: Count | None = 30
    """Longest concept, in characters."""
    max_class_similarity: Cosine | None = 0.85
    """Drop a concept whose text is more similar than this to a class name."""
    max_mutual_similarity: Cosine | None = 0.9
    """Drop a concept whose text is more similar than this to another concept."""
    min_activation: Cosine | None = 0.25
    """Drop a concept whose mean cosine to its best training images is below this."""
    top_images: Count = 5


class ConceptsConfig(_Section):
    """The concept bank: exactly one of `file`, `names`, or `builtin`."""

    file: Name | None = None
    """.txt (a concept a line), .json or .yaml."""
    names: list[Name] | None = None
    builtin: Literal["birds"] | None = None
    """``birds``: the painted attributes, each with its own prompt."""
    templates: Name | list[Name] | None = None
    """Templates with one ``{}`` each (several are an ensemble), or the name of a set. Null: the names as they are."""
    filters: FiltersConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ConceptsConfig:
        given = [key for key in CONCEPT_SOURCES if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(CONCEPT_SOURCES)}; got {' and '.join(given)}")
        return self


LOSSES = ("gumbel", "contrastive", "l1", "similarity", "none")


class ModelConfig(_Section):
    """Parameters of `SparseCBMClassifier`, by its names and with its defaults; see there for what they mean."""

    loss: Literal["gumbel", "contrastive", "l1", "similarity", "none"] = "gumbel"
    variant: Literal["default", "published"] = "default"
    max_active_concepts: Count | None = None
    """At most so many non-zero activations an image."""
    concepts_per_class: Count | None = None
    """NEC: head weights a class on average; null keeps the dense head."""
    min_alignment: Annotated[float, Field(gt=0, le=1)] = 0.9
    nonnegative: bool = True
    loss_weight: NonNegative | None = None
    covariance_shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.3
    input_noise: NonNegative = 1.0
    temperature: tuple[Positive, Positive] = (1.0, 0.1)
    head_l2: NonNegative = 1e-4
    learning_rate: Positive = 3e-3
    batch_size: Count = 256
    max_iter: Count | None = None
    early_stopping: bool = False
    n_iter_no_change: Count = 5
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_accumulation_steps: Count = 1
    logit_scale: Positive = 100.0
    log_with: Name | None = None
    log_dir: Name | None = None
    device: Name = "auto"


class EvaluationConfig(_Section):
    """What is measured and shown beside the test accuracy."""

    examples: Annotated[int, Field(ge=0, le=200)] = 12
    """Pictures explained in the report: half of them right, half wrong where there are so many."""
    baseline: bool = True
    """Score a linear probe and the nearest class mean on the same embeddings, as accuracies to compare with."""


class RunConfig(_Section):
    """One run, from pictures to a report."""

    name: Name = "run"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    images: ImagesConfig = ImagesConfig()
    embeddings: EmbeddingsConfig | None = None
    encoder: EncoderConfig = EncoderConfig()
    concepts: ConceptsConfig = ConceptsConfig(builtin="birds")
    model: ModelConfig = ModelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Name | None = None
    """Folder for the results; null means ``runs/NAME`` in the current folder."""


class ClassesConfig(_Section):
    """The texts that stand for the classes: their names in templates, descriptions in your own words, or both."""

    templates: Name | list[Name] = "photo"
    """Templates with one ``{}`` each, or the name of a set, for the class names."""
    descriptions: Name | None = None
    """.json or .yaml: class name -> list of descriptions. Every class of the pictures needs at least one."""
    builtin: Literal["birds"] | None = None
    """``birds``: what the painted species look like, in words."""
    use: Literal["auto", "names", "descriptions"] = "auto"
    """What the search compares: ``auto`` takes descriptions where there are some."""


class SearchEmbeddingsConfig(EmbeddingsConfig):
    """Vectors made elsewhere: images, concept texts, and class texts in the order of the class names."""

    train: Name | None = None
    """Split with labels for `few_shot`, and the reference set of statistics."""
    classes: Name | None = None
    """.npz of the class texts' embeddings in the same space."""
    class_vectors: Name = "embeddings"
    """Array in `classes` of shape (K, d)."""
    class_names: Name | None = "names"
    """Array in `classes` of the K names; null: rows are in the order of the images' class names."""


class MatrixSearchConfig(_Section):
    """Parameters of `ConceptMatrixSearch`, by its names and with its defaults; see there for what they mean."""

    similarity: Literal[
        "whitened", "sparse", "contrast", "separating", "cosine", "cubed", "max", "column_normalised"
    ] = "whitened"
    ridge: Positive = 0.01
    max_active_concepts: Count = 32
    """Of the sparse rules: the most concepts that decide about a picture."""
    nonnegative: bool = True
    max_explained_concepts: Count = 32
    text_weight: NonNegative = 2.0
    """With few-shot pictures: a class's text counts as so many pictures."""
    covariance_shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.7
    logit_scale: Positive = 100.0


BASELINES = ("zero_shot", "descriptions", "decomposer", "cosine", "cubed", "max", "linear_probe")


class DecomposerConfig(_Section):
    """Parameters of `SparseDecomposer`, by its names."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.125
    max_concepts: Count | None = None
    suppress: list[Name] = []
    center: bool = True


class SearchConfig(_Section):
    """One search: pictures, concepts and class texts in; accuracy, seconds and explanations out. Nothing is trained."""

    name: Name = "search"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    images: ImagesConfig = ImagesConfig()
    split: Literal["train", "validation", "test"] = "test"
    """The pictures searched."""
    embeddings: SearchEmbeddingsConfig | None = None
    encoder: EncoderConfig = EncoderConfig()
    concepts: ConceptsConfig = ConceptsConfig(builtin="birds")
    classes: ClassesConfig = ClassesConfig()
    search: MatrixSearchConfig = MatrixSearchConfig()
    decomposer: DecomposerConfig = DecomposerConfig()
    reference: bool = True
    """Take the mean of the train pictures, without their labels, as the origin of sparse codes."""
    few_shot: Count | None = None
    """So many labelled pictures a class, drawn from train by the seed, beside the texts; null: texts only."""
    baselines: list[Literal["zero_shot", "descriptions", "decomposer", "cosine", "cubed", "max", "linear_probe"]] = [
        "zero_shot"
    ]
    """Methods in the same table; ``linear_probe`` is trained on the labels of train, the others are not."""
    examples: Annotated[int, Field(ge=0, le=200)] = 12
    """Pictures explained in the page."""
    output: Name | None = None
    """Folder for the results; null means ``runs/NAME`` in the current folder."""


Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class VaeDataConfig(_Section):
    """Where the pictures come from, and how they become binary: `sparsecbm.vae.load_pictures`."""

    name: Literal["digits", "mnist", "omniglot", "images"] = "digits"
    """``digits`` comes with scikit-learn; ``mnist`` and ``omniglot`` are read from `folder`, or `images`."""
    folder: Name | None = None
    """Folder with ``mnist/mnist.npz`` or ``omniglot_small/omniglot_small.npz``."""
    images: Name | None = None
    """Any image spec, such as ``hub:ylecun/mnist``, in place of a folder; made grey and `size` pixels wide."""
    size: Count = 28
    binarisation: Literal["static", "dynamic", "threshold"] = "static"
    """Intensities as probabilities drawn once; afresh at every training step; or 1 above half."""
    seed: Seed = 0
    """Seed of static binarisation, kept apart from the training seed."""
    max_train: Count | None = None
    max_validation: Count | None = None
    max_test: Count | None = None

    @model_validator(mode="after")
    def _source(self) -> VaeDataConfig:
        if self.name == "images" and self.images is None:
            raise ValueError("name 'images' needs data.images, an image spec such as folder:PATH")
        return self


class VaeModelConfig(_Section):
    """Parameters of `sparsecbm.vae.DiscreteVAE`, and of the other tasks' networks."""

    latents: Literal["bernoulli", "categorical"] = "bernoulli"
    categories: Annotated[int, Field(ge=2)] | None = None
    groups: Annotated[list[Count], Field(min_length=1)] = [32]
    """Latent variables in each group of the posterior: [32] is factorial, [16, 16] hierarchical. For the tasks
    ``structured`` and ``autoencoder``, the widths of the stochastic layers."""
    prior: Literal["bernoulli", "categorical", "rbm"] = "bernoulli"
    learn_prior: bool = True
    hidden: list[Count] = []
    """Hidden tanh layers of encoder and decoder; none makes them linear."""
    batch_norm: bool = True
    continuous: Count = 50
    """Gaussian latents of the task ``semisupervised``."""


class VaeObjectiveConfig(_Section):
    """What is maximised, and how its gradient is had."""

    name: Literal["mass", "density", "analytic", "score_function", "exact"] = "mass"
    samples: Count = 1
    """K; above 1 the objective is importance-weighted."""
    straight_through: bool = False
    prior_temperature: Positive | None = None
    """Of the relaxed prior in ``density``; null takes the posterior's."""
    negative: Literal["persistent", "annealing", "exact"] = "persistent"
    chains: Count = 100
    sweeps: Count = 10
    estimator: Literal["relaxed", "straight_through_relaxed", "straight_through", "score_function"] = "relaxed"
    """How gradients pass the stochastic layers of the tasks ``structured`` and ``autoencoder``."""
    labels: Count = 100
    """Labelled pictures of the task ``semisupervised``."""
    label_weight: NonNegative = 50.0
    """Weight of the classification loss of labelled pictures, task ``semisupervised``."""
    bound_weight: NonNegative = 0.1
    """Weight of the bound of labelled pictures, task ``semisupervised``."""
    marginalise: bool = False
    """Sum over the classes instead of relaxing them, task ``semisupervised``."""


class VaeTrainingConfig(_Section):
    """Options of `sparsecbm.vae.TrainingOptions`, by its names and with its defaults."""

    epochs: Count = 100
    batch_size: Count = 100
    learning_rate: Positive = 3e-3
    adam_eps: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    temperature: dict[str, Any] = {"name": "constant", "start": 0.5}
    warm_up: Share = 0.3
    evaluate_every: Count = 5
    early_stopping: bool = False
    n_iter_no_change: Count = 5
    checkpoint_every: Count = 500
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"


class VaeEvaluationConfig(_Section):
    """How the test likelihood is measured, and what is drawn."""

    samples: Count = 4000
    """Hard importance samples a picture."""
    max_pictures: Count | None = None
    """At most so many test pictures."""
    betas: Annotated[int, Field(ge=2)] = 1000
    """Temperatures of the annealed importance sampling of log Z."""
    chains: Annotated[int, Field(ge=2)] = 1024
    pictures: Annotated[int, Field(ge=1, le=1024)] = 100
    """Samples in the picture grid."""


class VaeConfig(_Section):
    """One run, from pictures to a likelihood with an interval."""

    name: Name = "vae"
    seed: Seed = 0
    task: Literal["density", "structured", "autoencoder", "semisupervised", "toy"] = "density"
    data: VaeDataConfig = VaeDataConfig()
    model: VaeModelConfig = VaeModelConfig()
    objective: VaeObjectiveConfig = VaeObjectiveConfig()
    training: VaeTrainingConfig = VaeTrainingConfig()
    evaluation: VaeEvaluationConfig = VaeEvaluationConfig()
    device: Name = "auto"
    log_with: Name | None = None
    """Any Accelerate tracker, such as ``tensorboard``."""
    log_dir: Name | None = None
    """Folder of the tracker; null means OUTPUT/logs."""
    output: Name | None = None
    """Folder for the results; null means ``runs/NAME`` in the current folder."""

    @model_validator(mode="after")
    def _fits(self) -> VaeConfig:
        if self.task == "density" and self.model.prior == "rbm" and self.objective.name == "density":
            raise ValueError("objective.name='density' needs a prior with a Concrete density, rbm has none; use mass")
        return self


KINDS: dict[str, type[_Section]] = {"train": RunConfig, "search": SearchConfig, "vae": VaeConfig}
"""Commands that take a configuration; a file of the package belongs to the one its name begins with, else to train."""

AnyConfig = TypeVar("AnyConfig", bound=_Section)


def load_search_config(source: str | Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read the configuration of a search; see `load_config`."""
    return _load(source, overrides, SearchConfig)


def build_search_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, what: str = "config", name: str = "search"
) -> SearchConfig:
    """Check the configuration of a search given as a mapping; see `load_config`.

    Examples
    --------
    >>> build_search_config({"search": {"similarity": "cosine"}}).baselines
    ['zero_shot']
    """
    return _build(values, overrides, SearchConfig, what=what, name=name)


def load_vae_config(source: str | Path, overrides: Sequence[str] = ()) -> VaeConfig:
    """Read the configuration of a discrete-latent VAE; see `load_config`."""
    return _load(source, overrides, VaeConfig)


def build_vae_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, what: str = "config", name: str = "vae"
) -> VaeConfig:
    """Check the configuration of a discrete-latent VAE given as a mapping; see `load_config`.

    Examples
    --------
    >>> build_vae_config({"model": {"prior": "rbm"}}, ["objective.samples=5"]).objective.samples
    5
    """
    return _build(values, overrides, VaeConfig, what=what, name=name)


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run configuration.

    Parameters
    ----------
    source : str or Path
        Path of a YAML file, or the name of one that comes with the package (see `builtin_configs`).
    overrides : sequence of str
        ``"section.key=value"`` each, the value in YAML; they win over the file. Relative paths in the file are taken
        from the file's folder, those in overrides from the current folder.

    Returns
    -------
    RunConfig
        Checked values.

    Raises
    ------
    InputError
        If the file is missing, too large, not plain YAML, or holds an unknown key or a bad value; the message names the
        key with its path and the nearest known one.
    """
    return _load(source, overrides, RunConfig)


def build_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, what: str = "config", name: str = "run"
) -> RunConfig:
    """Check a configuration given as a mapping; see `load_config`.

    Examples
    --------
    >>> build_config({"model": {"loss": "l1"}}, ["seed=3"]).seed
    3
    >>> build_config({"model": {"los": "l1"}})
    Traceback (most recent call last):
        ...
    sparsecbm._errors.InputError: config: unknown key 'model.los'; did you mean 'model.loss'?
    """
    return _build(values, overrides, RunConfig, what=what, name=name)


def _load(source: str | Path, overrides: Sequence[str], model: type[AnyConfig]) -> AnyConfig:
    path = find_config(source, next(kind for kind, held in KINDS.items() if held is model))
    values = _anchor_paths(read_yaml(path), path.parent)
    return _build(values, overrides, model, what=str(source), name=path.stem)


def _build(
    values: Mapping[str, Any], overrides: Sequence[str], model: type[AnyConfig], *, what: str, name: str
) -> AnyConfig:
    merged = {"name": name, **_copy(values)}
    for override in overrides:
        _override(merged, override)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise InputError(f"{what}: {_one_line(error, model)}") from None


def builtin_configs(kind: str = "train") -> dict[str, Path]:
    """Return the configurations that come with the package for one command, by name.

    Parameters
    ----------
    kind : {"train", "search", "vae"}
    """
    found = {path.stem: path for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))}
    return {name: path for name, path in found.items() if _kind(name) == kind}


def _kind(name: str) -> str:
    prefix = name.partition("_")[0]
    return prefix if prefix in KINDS and "_" in name else "train"


def find_config(source: str | Path, kind: str = "train") -> Path:
    """Return the path of a configuration given as a path or as a built-in name.

    Raises
    ------
    InputError
        If there is no such file or name, or the name is of a configuration for another command.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"config {str(source)!r} is a folder: expected a YAML file")
    known = builtin_configs(kind)
    if str(source) in known:
        return known[str(source)]
    other = _kind(str(source))
    if other != kind and str(source) in builtin_configs(other):
        raise InputError(f"config {str(source)!r} is for `sparsecbm {other}`, not for `sparsecbm {kind}`")
    if len(path.parts) == 1 and not path.suffix:
        raise unknown("config", str(source), known)
    raise InputError(f"config file {str(source)!r} not found{suggest(path.stem, known)}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping: plain data only, at most `MAX_CONFIG_BYTES`, no anchors, no key twice.

    Raises
    ------
    InputError
        If the file breaks one of these rules, naming the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_CONFIG_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise StoredFileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise InputError(f"{str(path)!r} is larger than {MAX_CONFIG_BYTES // 1024} KiB: not a configuration")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # A few nested aliases can expand to gigabytes; no configuration needs one.
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{str(path)!r}, line {event.start_mark.line + 1}: YAML aliases are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise InputError(f"{str(path)!r} is nested more than {_MAX_DEPTH} levels deep: not a configuration")
        twice = next(_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)), None)
        if twice is not None:
            line = twice.start_mark.line + 1
            raise InputError(f"{str(path)!r}, line {line}: key {twice.value!r} is given twice; keep one")
        values = yaml.safe_load(text)
    except _YAML_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is not valid YAML: {_yaml_problem(error)}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{str(path)!r}: expected keys and values (a YAML mapping), got {type(values).__name__}")
    return values


def dump_config(config: RunConfig | SearchConfig | VaeConfig) -> str:
    """Return the configuration as YAML that `load_config` (`load_search_config`) reads back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _config_folders() -> Iterator[Path]:
    """Folder of the installed package, then that of a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "configs", here / "_configs"):
        # A site-packages/configs of some other package is not ours: a checkout has a pyproject beside it.
        if folder.is_dir() and (folder.name == "_configs" or (here.parent / "pyproject.toml").is_file()):
            yield folder


_PATH_KEYS = (
    ("concepts", "file"),
    ("embeddings", "path"),
    ("embeddings", "concepts"),
    ("embeddings", "classes"),
    ("classes", "descriptions"),
    ("data", "folder"),
)
_PATH_SPECS = (
    ("images", "spec", ("folder:", "parquet:")),
    ("data", "images", ("folder:", "parquet:")),
    ("encoder", "spec", ("open_clip:local-dir:",)),
)


def _anchor_paths(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the file's relative paths independent of the current folder."""
    values = _copy(values)

    def anchor(path: str) -> str:
        return os.path.normpath(Path(folder, Path(path).expanduser()).absolute())

    for section, key in _PATH_KEYS:
        held = values.get(section)
        if isinstance(held, dict) and isinstance(held.get(key), str) and held[key].strip():
            held[key] = anchor(held[key].strip())
    for section, key, prefixes in _PATH_SPECS:
        held = values.get(section)
        if isinstance(held, dict) and isinstance(held.get(key), str):
            for prefix in prefixes:
                if held[key].startswith(prefix) and len(held[key]) > len(prefix):
                    held[key] = prefix + anchor(held[key][len(prefix) :])
    return values


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {text!r}: expected key=value, such as --set model.loss=l1")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(raw, Loader=yaml.SafeLoader)):
            raise InputError(f"--set {text!r}: YAML aliases are not allowed")
        value = yaml.safe_load(raw)
    except _YAML_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--set {text!r}: the value is not valid YAML ({_yaml_problem(error)}); quote it") from error
    held = values
    for part in parts[:-1]:
        nested = held.get(part)
        if nested is None:
            nested = held[part] = {}
        if not isinstance(nested, dict):
            raise InputError(f"--set {text!r}: {part!r} is a value, not a section")
        held = nested
    if parts[0] == "concepts" and len(parts) == 2 and parts[1] in CONCEPT_SOURCES:
        for other in CONCEPT_SOURCES:  # naming one source replaces the file's
            held.pop(other, None)
    held[parts[-1]] = value


def _repeated_keys(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _repeated_keys(child)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())[:200] or type(error).__name__
    return f"{problem}, line {mark.line + 1} column {mark.column + 1}" if mark is not None else problem


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first mistake in one line: which key, which value, what was expected."""
    # Unknown keys first: a misspelt key often causes the others.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    problem, more = problems[0], len(problems) - 1
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        parents = [str(part) for part in problem["loc"][:-1]]
        known = _keys(model, parents)
        prefix = ".".join([*parents, ""]) if parents else ""
        near = suggest(str(problem["loc"][-1]), known)
        if not near:  # the key may belong to another section
            near = suggest(str(problem["loc"][-1]), [path.rsplit(".", 1)[-1] for path in _all_keys(model)])
            if near:
                leaf = near.split("'")[1]
                path = next(path for path in _all_keys(model) if path.rsplit(".", 1)[-1] == leaf)
                return f"unknown key {place!r}; did you mean {path!r}?{tail}"
            return f"unknown key {place!r}: expected one of {', '.join(prefix + key for key in known)}{tail}"
        return f"unknown key {place!r}{near.replace(chr(39), chr(39) + prefix, 1)}{tail}"
    if problem["type"] == "literal_error":
        allowed = [str(choice).strip("' ") for choice in problem["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"unknown {place} {value!r}: expected one of {', '.join(allowed)}{suggest(str(value), allowed)}{tail}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{place}={value!r}: expected a section (keys and values){tail}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{place}: {message}{tail}"
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{place}={shown}: {message}{tail}"


def _keys(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    for part in parents:
        nested = _section(model, part)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    kinds = (model.model_fields[key].annotation,) if key in model.model_fields else ()
    kinds = (*kinds, *(arg for kind in kinds for arg in getattr(kind, "__args__", ())))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key in model.model_fields:
        yield prefix + key
        nested = _section(model, key)
        if nested is not None:
            yield from _all_keys(nested, f"{prefix}{key}.")
