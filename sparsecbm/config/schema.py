"""The typed configuration of a run: YAML in, checked values out, one clear line for every mistake.

Nothing here imports torch, so a wrong key is reported at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from sparsecbm._base.parts import (
    CLASSIFIERS,
    GATES,
    LATENTS,
    LIKELIHOODS,
    LOSSES,
    NEGATIVE_PHASES,
    OBJECTIVES,
    PRIORS,
    SEARCH_RULES,
    TIES,
)
from sparsecbm.config.options import OneOf, declared

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)


class _Declared(_Section):
    """A section whose options a class declares; see `declared`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class ImagesConfig(_Section):
    """Where the pictures come from: `load_images(spec, split)` for train, validation and test."""

    spec: Name = "birds"
    """``birds[:HABITAT]``, ``hub:REPO[:CONFIG]``, ``folder:PATH`` or ``parquet:GLOB``."""
    splits: dict[Literal["train", "validation", "test"], Name] | None = None
    """Which official split serves as which; what is missing is carved from train, seeded and stratified."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of carved splits, subsets and painted pictures (kept apart from the training seed)."""
    max_train: Count | None = None
    """At most so many training pictures, a stratified subset; null: all."""
    max_validation: Count | None = None
    """At most so many validation pictures."""
    max_test: Count | None = None
    """At most so many test pictures."""
    image_column: Name | None = None
    """Of a hub or parquet data set: the column of the pictures; null finds it by its type."""
    label_column: Name | None = None
    """Of a hub or parquet data set: the column of the labels; null finds it by its type."""
    concept_labels: Name | list[Name] | None = None
    """What people say the pictures show: a .csv file, columns of a hub or parquet data set, ``attributes`` of painted
    birds; null: ``attributes.csv`` of a folder, if there is one. Concepts of these names learn from it."""
    class_labels: Name | list[Name] | None = None
    """Classes that do not exclude each other, in place of one class a picture: a .csv file, or columns of a hub or
    parquet data set, with 0 or 1 (or lists of names) for every picture."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with a picture that cannot be decoded: stop and name it, or leave it out and count it."""


class EmbeddingsConfig(_Section):
    """Vectors made elsewhere, in place of pictures: `load_embeddings(path, split)`."""

    path: Name
    """.npz, .safetensors or .parquet with ``SPLIT_images`` and ``SPLIT_labels``."""
    train: Name = "train"
    """Split of the file that is trained on."""
    validation: Name | None = None
    """Split for early stopping; null: none."""
    test: Name | None = "test"
    """Split that is measured; null: none."""
    concepts: Name
    """.npz of the concept texts' embeddings in the same space."""
    concept_vectors: Name = "embeddings"
    """Array in `concepts` of shape (M, d)."""
    concept_names: Name = "names"
    """Array in `concepts` of M names."""
    classes: Name | None = None
    """.npz of the class texts' embeddings in the same space."""
    class_vectors: Name = "embeddings"
    """Array in `classes` of shape (K, d)."""
    class_names: Name | None = "names"
    """Array in `classes` of the K names; null: rows are in the order of the images' class names."""
    concept_labels: Name | None = None
    """.csv of what people say the rows show: a column a concept, and a row an image (``train/0``, ``train/1``, ...: the
    split's name in the file, and the row) or a class."""
    encoder: Name | None = None
    """Spec of the encoder that made the vectors, taken on trust, so that the model can be used on pictures."""


class EncoderConfig(_Section):
    """The frozen encoder: `load_encoder(spec)`."""

    spec: Name = "bundled"
    """``bundled`` (painted birds alone), ``open_clip:MODEL/PRETRAINED``, ``open_clip:local-dir:PATH`` or
    ``transformers:REPO_OR_PATH``."""
    batch_size: Count | None = None
    """Pictures a forward pass; null: 32 on a CPU, 256 on a GPU."""
    precision: Name = "auto"
    """auto, float32, bfloat16 or float16."""
    device: Name = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    cache: Literal["disk", "disk-or-memory", "memory"] = "disk"
    """Where embeddings are kept; ``disk-or-memory`` does without the disk where the cache cannot be written."""


CONCEPT_SOURCES = ("file", "names", "builtin")


@declared("concepts/filters:filter_concepts", leave=("concept_embeddings", "class_embeddings", "image_embeddings"))
class FiltersConfig(_Declared):
    """Label-free concept filters, as `filter_concepts` declares them; null leaves one out."""


class ConceptsConfig(_Section):
    """The concept bank: exactly one of `file`, `names`, or `builtin`."""

    file: Name | None = None
    """.txt (a concept a line), .json or .yaml."""
    names: list[Name] | None = None
    """The concepts themselves."""
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


@declared(
    "estimators/sparse_cbm:SparseCBMClassifier",
    leave=("random_state", "verbose", "validation_fraction"),
    loss=OneOf(LOSSES),
    gate=OneOf(GATES, "auto"),
    tie=OneOf(TIES),
)
class ModelConfig(_Declared):
    """Options of `SparseCBMClassifier`, as its signature and its docstring declare them."""


class EvaluationConfig(_Section):
    """What is measured and shown beside the test accuracy."""

    examples: Annotated[int, Field(ge=0, le=200)] = 12
    """Pictures explained in the report: half of them right, half wrong where there are so many."""
    control: bool = True
    """Train the same recipe once more, on as many meaningless directions: what the concepts reach beyond it they owe to
    what they mean. Left out in a launch of several processes."""
    baseline: bool = True
    """Score a linear probe and the nearest class mean on the same embeddings, as accuracies to compare with."""


@declared("encoders/adapting:AdaptOptions")
class AdaptConfig(_Declared):
    """Options of `sparsecbm adapt`, as `sparsecbm.encoders.adapting.AdaptOptions` declares them."""


class RunConfig(_Section):
    """One run, from pictures to a report."""

    name: Name = "run"
    """Of the run, for titles and the folder of results; by default the file's."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of every random draw."""
    images: ImagesConfig = ImagesConfig()
    embeddings: EmbeddingsConfig | None = None
    encoder: EncoderConfig = EncoderConfig()
    concepts: ConceptsConfig = ConceptsConfig(builtin="birds")
    model: ModelConfig = ModelConfig()
    adapt: AdaptConfig = AdaptConfig()
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

    train: Name | None = None  # type: ignore[assignment]  # optional here; pydantic takes the wider field
    """Split with labels for `few_shot`, and the reference set of statistics."""


@declared("estimators/concept_matrix_search:ConceptMatrixSearch", similarity=OneOf(SEARCH_RULES))
class MatrixSearchConfig(_Declared):
    """Options of `ConceptMatrixSearch`, as its signature and its docstring declare them."""


BASELINES = ("zero_shot", "descriptions", "decomposer", "cosine", "cubed", "max", "linear_probe")


@declared("estimators/sparse_decomposer:SparseDecomposer", leave=("verbose",))
class DecomposerConfig(_Declared):
    """Options of `SparseDecomposer`, as its signature and its docstring declare them."""

    suppress: list[Name] = []
    """Concepts that may not be used, such as a known spurious one."""


class SearchConfig(_Section):
    """One search: pictures, concepts and class texts in; accuracy, seconds and explanations out. Nothing is trained."""

    name: Name = "search"
    """Of the run, for titles and the folder of results; by default the file's."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of every random draw."""
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
    control: bool = True
    """Search by as many meaningless directions, too: what concepts reach beyond them they owe to what they mean."""
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
    """Folder with ``mnist/mnist.npz``, ``omniglot/chardata.mat`` or ``omniglot_small/omniglot_small.npz``."""
    images: Name | None = None
    """Any image spec, such as ``hub:ylecun/mnist``, in place of a folder; made grey and `size` pixels wide."""
    size: Count = 28
    """Side of the pictures in pixels."""
    binarisation: Literal["static", "dynamic", "threshold", "none"] = "static"
    """Intensities as probabilities drawn once; afresh at every training step; 1 above half; or none, for a Gaussian
    likelihood."""
    seed: Seed = 0
    """Seed of static binarisation, kept apart from the training seed."""
    max_train: Count | None = None
    """At most so many training pictures."""
    max_validation: Count | None = None
    """At most so many validation pictures."""
    max_test: Count | None = None
    """At most so many test pictures."""

    @model_validator(mode="after")
    def _source(self) -> VaeDataConfig:
        if self.name == "images" and self.images is None:
            raise ValueError("name 'images' needs data.images, an image spec such as folder:PATH")
        return self


@declared("vae/tasks/semisupervised:LabelledVAE", leave=("hidden", "batch_norm"), classifier=OneOf(CLASSIFIERS))
@declared("vae/model:DiscreteVAE", latents=OneOf(LATENTS), prior=OneOf(PRIORS), likelihood=OneOf(LIKELIHOODS))
class VaeModelConfig(_Declared):
    """Options of `sparsecbm.vae.DiscreteVAE`, and of the other tasks' networks, as their signatures declare them."""


@declared("vae/tasks/semisupervised:SemiSupervisedTask", leave=("straight_through", "labelled_batch", "dynamic"))
class VaeObjectiveConfig(_Declared):
    """What is maximised, and how its gradient is had."""

    name: Annotated[str, OneOf(OBJECTIVES)] = "mass"
    """mass, density, analytic, score_function or exact."""
    samples: Count = 1
    """K; above 1 the objective is importance-weighted."""
    straight_through: bool = False
    """Take hard samples forward and the relaxed ones' gradient back."""
    prior_temperature: Positive | None = None
    """Of the relaxed prior in ``density``; null takes the posterior's."""
    options: dict[str, Any] = {}
    """Further keywords of the objective's constructor, such as ``decay`` of ``score_function``."""
    negative: Annotated[str, OneOf(NEGATIVE_PHASES)] = "persistent"
    """How the gradient of an RBM's log Z is had: persistent, annealing, tempering or exact."""
    chains: Count = 100
    """Chains of the negative phase."""
    sweeps: Count = 10
    """Gibbs sweeps a step of each chain."""
    estimator: Literal["relaxed", "straight_through_relaxed", "straight_through", "score_function"] = "relaxed"
    """How gradients pass the stochastic layers of the tasks ``structured`` and ``autoencoder``."""
    labels: Count = 100
    """Labelled pictures of the task ``semisupervised``."""


@declared("vae/training:TrainingOptions")
class VaeTrainingConfig(_Declared):
    """Options of `sparsecbm.vae.TrainingOptions`, as its fields and its docstring declare them."""


class VaeEvaluationConfig(_Section):
    """How the test likelihood is measured, and what is drawn."""

    samples: Count = 4000
    """Hard importance samples a picture."""
    max_pictures: Count | None = None
    """At most so many test pictures."""
    betas: Annotated[int, Field(ge=2)] = 1000
    """Temperatures of the annealed importance sampling of log Z."""
    chains: Annotated[int, Field(ge=2)] = 1024
    """Chains of the annealed importance sampling."""
    anneal: Annotated[int, Field(ge=0)] = 0
    """Steps of annealing over the latents of each picture, where importance samples support no interval; 0: none."""
    pictures: Annotated[int, Field(ge=1, le=1024)] = 100
    """Samples in the picture grid."""


class VaeConfig(_Section):
    """One run, from pictures to a likelihood with an interval."""

    name: Name = "vae"
    """Of the run, for titles and the folder of results; by default the file's."""
    seed: Seed = 0
    """Of every random draw."""
    task: Literal["density", "structured", "autoencoder", "semisupervised", "toy"] = "density"
    """What is learnt; see `sparsecbm.vae.tasks`."""
    data: VaeDataConfig = VaeDataConfig()
    model: VaeModelConfig = VaeModelConfig()
    objective: VaeObjectiveConfig = VaeObjectiveConfig()
    training: VaeTrainingConfig = VaeTrainingConfig()
    evaluation: VaeEvaluationConfig = VaeEvaluationConfig()
    device: Name = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    log_with: Name | None = None
    """Any Accelerate tracker, such as ``tensorboard``."""
    log_dir: Name | None = None
    """Folder of the tracker; null means OUTPUT/logs."""
    output: Name | None = None
    """Folder for the results; null means ``runs/NAME`` in the current folder."""
