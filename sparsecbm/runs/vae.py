"""`vae_run`: a discrete-latent model, from a configuration to a likelihood with an interval and pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import plain, read_json, write_json, write_text
from sparsecbm._base.launch import is_main_process
from sparsecbm.config.reading import dump_config
from sparsecbm.config.schema import VaeConfig
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import output_folder, publish

if TYPE_CHECKING:
    import torch

    from sparsecbm.vae import DiscreteVAE, Pictures, Task, Trainer


_FILES = (
    "model",
    "config.yaml",
    "samples.png",
    "reconstructions.png",
    "categories.png",
    "learning_curve.png",
    "metrics.json",
)


@dataclass(frozen=True)
class VaeResult(Result):
    """What `vae_run` made: the output folder, and the content of its ``metrics.json``."""

    output: Path
    metrics: dict[str, Any]


def vae_run(config: VaeConfig, *, progress: bool | None = None) -> VaeResult:
    """Train a discrete-latent model and measure it with hard samples.

    Writes ``config.yaml`` (as run), pictures, for density estimation ``model/``, and, last, ``metrics.json`` into the
    output folder. While training, ``checkpoint/`` holds what the same call resumes from, bit for bit. In an
    ``accelerate launch`` of several processes every process must call this; the first one writes.

    Parameters
    ----------
    config : VaeConfig
    progress : bool or None
        Progress bars; None decides by the terminal.

    Returns
    -------
    VaeResult
        In processes other than the first, without metrics.

    Raises
    ------
    InputError
        If the configuration asks for something that is not there or does not fit.
    StoredFileError
        If the output folder cannot be written, or holds files that are not of an earlier run.
    """
    output = Path(config.output or Path("runs") / config.name)
    with output_folder(output, _FILES, _wrote) as checkpoint:
        run = _toy if config.task == "toy" else _run
        return run(config, output, checkpoint, progress)


def _run(config: VaeConfig, output: Path, checkpoint: Path, progress: bool | None) -> VaeResult:
    start = time.perf_counter()
    pictures = vae_pictures(config)
    task = vae_task(config, pictures)
    trainer = _trainer(config, pictures, task, checkpoint, progress)
    loaded = time.perf_counter() - start
    train, validation = _arrays(config, pictures, "train"), _arrays(config, pictures, "validation")
    history = trainer.fit(train, validation)
    if not is_main_process():
        return VaeResult(output, {})
    start = time.perf_counter()
    test = _test(config, pictures, task, progress)
    metrics = {
        "config": config.name,
        "task": config.task,
        "seed": config.seed,
        "data": _described(config, pictures),
        "epochs": history[-1]["epoch"] if history else 0,
        "steps": trainer.steps,
        "test": test,
        "history": history,
        "seconds": {"data": loaded, "training": trainer.seconds, "evaluation": time.perf_counter() - start},
    }
    publish(output, _FILES, lambda folder: _write_results(folder, config, pictures, task, metrics))
    return VaeResult(output, plain(metrics))


def _described(config: VaeConfig, pictures: Pictures) -> dict[str, Any]:
    sizes = {split: len(getattr(pictures, split)) for split in ("train", "validation", "test")}
    return {"name": pictures.name, "note": pictures.note, "binarisation": config.data.binarisation, **sizes}


def vae_pictures(config: VaeConfig) -> Pictures:
    """Return the binary pictures of a configuration."""
    from sparsecbm.vae import load_pictures

    data = config.data
    limits = {key: getattr(data, key) for key in ("max_train", "max_validation", "max_test")}
    name: Any = data.name
    if data.images is not None or (name == "mnist" and data.folder is None):
        name = _from_images(data.images or "hub:ylecun/mnist", data.size, name)
    return load_pictures(name, data.folder, binarisation=data.binarisation, seed=data.seed, **limits)


def _from_images(spec: str, size: int, name: str) -> Pictures:
    """Any image source as grey intensities; a test split of its own where it has one, else a carved one."""
    from sparsecbm.data import load_images
    from sparsecbm.vae import Pictures

    parts: dict[str, Any] = {}
    labels: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        source = load_images(spec, split)
        rows = np.random.default_rng(0).permutation(len(source))  # folders are sorted by class, limits take the first
        parts[split] = np.stack([_grey(source[int(i)], size) for i in rows])
        if source.labels is not None:
            labels[split] = np.asarray(source.labels, dtype=np.int64)[rows]
    return Pictures(**parts, shape=(size, size), name=name, labels=labels, note=f"from {spec}")


def _grey(image: Any, size: int) -> np.ndarray:
    grey = image.convert("L")
    return np.asarray(grey if grey.size == (size, size) else grey.resize((size, size))).reshape(-1)


def vae_task(config: VaeConfig, pictures: Pictures) -> Task:
    """Return the untrained model of a configuration, with its objective."""
    import torch

    from sparsecbm.vae import tasks

    model, objective = config.model, config.objective
    generator = torch.Generator().manual_seed(config.seed)
    means = pictures.pixel_means
    if config.task == "density":
        return _density_task(config, means, generator)
    if config.task == "semisupervised":
        if "train" not in pictures.labels:
            raise InputError(f"data {pictures.name!r} has no labels: the task 'semisupervised' needs some")
        labels = torch.from_numpy(pictures.labels["train"])
        count = int(labels.max()) + 1
        rows = tasks.choose_labelled(labels, objective.labels, count, generator=generator)
        x = pictures.train[rows.numpy()]
        return tasks.SemiSupervisedTask(
            tasks.LabelledVAE(
                means.numel(),
                count,
                **model.model_dump(include={"continuous", "classifier", "hidden", "batch_norm"}),
                pixel_means=means,
                generator=generator,
            ),
            torch.from_numpy(x).float(),
            labels[rows],
            dynamic=pictures.dynamic,
            **objective.model_dump(
                include={"marginalise", "straight_through", "label_weight", "bound_weight", "shift", "dropout"}
            ),
        )
    structured = config.task == "structured"
    inputs, outputs = (means[: means.numel() // 2], means[means.numel() // 2 :]) if structured else (means, means)
    network = tasks.StochasticNetwork(
        inputs.numel(),
        outputs.numel(),
        groups=model.groups,
        latents=model.latents,
        categories=model.categories,
        hidden=model.hidden,
        batch_norm=model.batch_norm,
        input_means=inputs,
        output_means=outputs,
        generator=generator,
    )
    kind = tasks.StructuredTask if structured else tasks.AutoencoderTask
    return kind(network, estimator=objective.estimator, samples=objective.samples)


def _density_task(config: VaeConfig, means: torch.Tensor, generator: torch.Generator) -> Task:
    from sparsecbm.vae import DensityTask, DiscreteVAE, make_objective

    model, objective = config.model, config.objective
    if config.data.binarisation == "none" and model.likelihood == "bernoulli":
        raise InputError("data.binarisation=none leaves pictures grey: it needs model.likelihood=gaussian")
    vae = DiscreteVAE(
        means.numel(),
        **model.model_dump(exclude={"continuous", "classifier"}),
        pixel_means=means,
        generator=generator,
    )
    extra = dict(objective.options)
    if objective.prior_temperature is not None:
        extra["prior_temperature"] = objective.prior_temperature
    chosen = make_objective(
        objective.name, samples=objective.samples, straight_through=objective.straight_through, **extra
    )
    negative = vae.prior.negative_phase(
        objective.negative, seed=config.seed, chains=objective.chains, sweeps=objective.sweeps
    )
    return DensityTask(vae, chosen, negative)


def _trainer(config: VaeConfig, pictures: Pictures, task: Task, checkpoint: Path, progress: bool | None) -> Trainer:
    from sparsecbm.vae import Trainer, TrainingOptions

    return Trainer(
        task,
        TrainingOptions(**config.training.model_dump()),
        seed=config.seed,
        device=config.device,
        dynamic=pictures.dynamic,
        checkpoint_dir=checkpoint,
        log_with=config.log_with,
        log_dir=config.log_dir or (checkpoint.parent / "logs" if config.log_with else None),
        progress=progress,
    )


def _arrays(config: VaeConfig, pictures: Pictures, split: str) -> dict[str, np.ndarray]:
    arrays = {"x": getattr(pictures, split)}
    if config.task == "semisupervised" and split != "train":
        arrays["y"] = pictures.labels[split]
    return arrays


def _test(config: VaeConfig, pictures: Pictures, task: Task, progress: bool | None) -> dict[str, Any]:
    """Measure the test split with hard samples."""
    import torch

    from sparsecbm.vae import DensityTask, estimate_log_likelihood
    from sparsecbm.vae.evaluation import EFFECTIVE_SAMPLES
    from sparsecbm.vae.tasks import StochasticTask

    settings = config.evaluation
    device = next(task.parameters()).device
    generator = torch.Generator(device=device).manual_seed(config.seed + 1)
    x = torch.from_numpy(pictures.test[: settings.max_pictures]).float().to(device)
    if isinstance(task, DensityTask):
        estimate = estimate_log_likelihood(
            task.model,
            x,
            settings.samples,
            generator=generator,
            betas=settings.betas,
            chains=settings.chains,
            anneal=settings.anneal,
            progress=progress,
        )
        return estimate.to_json()
    if isinstance(task, StochasticTask):
        weights = task.importance(x, settings.samples, generator=generator)
        found, sizes = weights.log_mean, weights.effective_sample_size
        size = float(sizes.median())
        error = float(found.std()) / len(found) ** 0.5
        value = float(found.mean())
        return {
            "log_likelihood": value,
            "population_interval": (
                [value - 1.96 * error, value + 1.96 * error] if size >= EFFECTIVE_SAMPLES else None
            ),
            "effective_sample_size": size,
            "samples": settings.samples,
            "n_pictures": len(found),
        }
    y = torch.from_numpy(pictures.labels["test"][: settings.max_pictures]).to(device)
    accuracy = task.validate({"x": x, "y": y}, generator=generator)["score"]
    error = (accuracy * (1 - accuracy) / len(y)) ** 0.5
    return {
        "accuracy": accuracy,
        "population_interval": [accuracy - 1.96 * error, accuracy + 1.96 * error],
        "n_pictures": len(y),
    }


def _write_results(folder: Path, config: VaeConfig, pictures: Pictures, task: Task, metrics: Mapping[str, Any]) -> None:
    import torch

    from sparsecbm.vae import DensityTask, save_vae
    from sparsecbm.vae.pictures import save_curves, save_grid
    from sparsecbm.vae.tasks import LabelledVAE, SemiSupervisedTask, StochasticTask

    device = next(task.parameters()).device
    generator = torch.Generator(device=device).manual_seed(config.seed + 2)
    shown = torch.from_numpy(pictures.test[:40]).float().to(device)
    made = None
    if isinstance(task, DensityTask):
        save_vae(folder / "model", task.model.cpu(), config=config.name)
        task.model.to(device)
        made = task.model.reconstruct(shown, generator=generator)
        samples = task.model.sample(config.evaluation.pictures, generator=generator)
        save_grid(folder / "samples.png", samples.cpu().numpy(), pictures.shape)
    elif isinstance(task, StochasticTask):
        made = task.predict(shown, generator=generator)
    elif isinstance(task, SemiSupervisedTask):
        assert isinstance(task.model, LabelledVAE)
        samples = task.model.sample(10, generator=generator)
        save_grid(folder / "samples.png", samples.cpu().numpy(), pictures.shape, columns=task.model.n_classes)
    if made is not None:
        columns = min(10, len(shown))
        whole = len(shown) // columns * columns
        pairs = torch.stack([held[:whole].view(-1, columns, held.shape[1]) for held in (shown, made)], 1)
        images = pairs.reshape(-1, shown.shape[1]).cpu().numpy()
        save_grid(folder / "reconstructions.png", images, pictures.shape, columns=columns, pair=True)
    history = metrics["history"]
    curves = {"validation, hard samples": [(held["epoch"], held["val_score"]) for held in history]}
    label = "accuracy" if config.task == "semisupervised" else "nats"
    if label == "nats":
        curves["training objective"] = [(held["epoch"], held["bound"]) for held in history if held["beta"] == 1.0]
    save_curves(folder / "learning_curve.png", curves, label=label, title=config.name)
    _write(folder, config, metrics)


def _write(folder: Path, config: VaeConfig, metrics: Mapping[str, Any]) -> None:
    write_text(folder / "config.yaml", dump_config(config))
    write_json(folder / "metrics.json", plain(metrics))


def _toy(config: VaeConfig, output: Path, checkpoint: Path, progress: bool | None) -> VaeResult:
    """Every version of the bound, trained alike, beside the exact expectation: what it says, and what it owes to it."""
    import torch

    from sparsecbm.vae import DensityTask
    from sparsecbm.vae.pictures import save_curves, save_grid
    from sparsecbm.vae.tasks import VERSIONS, gradient_quality, measure_exactly, state_pictures

    start = time.perf_counter()
    pictures = vae_pictures(config)
    x = torch.from_numpy(pictures.test[: config.evaluation.max_pictures]).float()
    found: dict[str, Any] = {}
    rows: list[torch.Tensor] = []
    early: DiscreteVAE | None = None  # a model at the beginning, whose gradients are looked at
    for number, (label, (name, straight_through)) in enumerate(VERSIONS.items()):
        changes: dict[str, Any] = {"name": name, "straight_through": straight_through}
        if name != "density":
            changes["prior_temperature"] = None
        version = config.model_copy(
            update={"task": "density", "objective": config.objective.model_copy(update=changes)}
        )
        task = vae_task(version, pictures)
        assert isinstance(task, DensityTask)
        arrays = _arrays(version, pictures, "train"), _arrays(version, pictures, "validation")
        if early is None:
            short = version.model_copy(update={"training": config.training.model_copy(update={"epochs": 1})})
            first = vae_task(short, pictures)
            _trainer(short, pictures, first, checkpoint / "early", progress).fit(*arrays)
            assert isinstance(first, DensityTask)
            early = first.model.cpu()
        history = _trainer(version, pictures, task, checkpoint / str(number), progress).fit(*arrays)
        temperature, model = history[-1]["temperature"], task.model.cpu()
        generator = torch.Generator().manual_seed(config.seed + 1)
        found[label] = {
            **measure_exactly(model, x, task.objective, temperature=temperature, generator=generator),
            "temperature": temperature,
            "history": history,
        }
        rows.append(state_pictures(model))
        found[label]["gradient"] = vars(
            gradient_quality(
                early, x[:50], task.objective.cpu(), temperature=temperature, draws=2000, generator=generator
            )
        )
    metrics = {
        "config": config.name,
        "task": "toy",
        "seed": config.seed,
        "data": _described(config, pictures),
        "versions": found,
        "seconds": {"all": time.perf_counter() - start},
    }

    def write(folder: Path) -> None:
        grid = torch.cat(rows).numpy()
        histories = {label: held["history"] for label, held in found.items()}
        bounds = {label: [(entry["epoch"], entry["val_elbo"]) for entry in held] for label, held in histories.items()}
        said = {
            label: [(entry["epoch"], entry["bound"]) for entry in held if entry["beta"] == 1.0]
            for label, held in histories.items()
        }
        words = [label.partition(":")[0] for label in found]
        save_grid(folder / "categories.png", grid, pictures.shape, columns=len(rows[0]), rows=words)
        save_curves(
            folder / "learning_curve.png",
            bounds,
            dashed=said,
            label="nats; dashed: the objective, in training",
            title=config.name,
        )
        _write(folder, config, metrics)

    if is_main_process():
        publish(output, _FILES, write)
    return VaeResult(output, plain(metrics))


def _wrote(folder: Path) -> bool:
    """Whether an earlier run of `vae_run` wrote what lies in a folder."""
    try:
        held = read_json(folder / "metrics.json")
    except StoredFileError:
        return False
    return isinstance(held, dict) and "task" in held
