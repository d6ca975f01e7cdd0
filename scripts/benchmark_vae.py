"""Likelihoods of discrete-latent VAEs on digits, MNIST and Omniglot: which objective, which prior, which posterior.

    python scripts/benchmark_vae.py                                     # digits, 16 + 16 latents, 5 seeds
    python scripts/benchmark_vae.py --data mnist --data-dir DATA        # MNIST, four shapes, linear and nonlinear
    python scripts/benchmark_vae.py family --data-dir DATA --seeds 3    # the same on MNIST and Omniglot
    python scripts/benchmark_vae.py speed                               # cost of the negative phase
    python scripts/benchmark_vae.py structured --data-dir DATA          # lower half of MNIST from the upper
    python scripts/benchmark_vae.py semisupervised --data-dir DATA      # 100 labels; relaxation and marginalisation
    python scripts/benchmark_vae.py convolutional --data-dir DATA       # 100 labels, a convolutional classifier

Runs go to --out, a folder a run; a run that is there already is not made again, and one that was stopped goes on from
its checkpoint, so that the same command can be called until it is done. Every number is the mean log-likelihood of test
pictures by hard importance samples, with log Z by enumeration or annealed importance sampling.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sparsecbm.vae import Task

# name -> (model, objective, temperature). Temperatures were chosen on the digits' validation split among 1/7, 1/4, 1/2,
# 2/3 and 1; (prior, posterior) temperatures (1/2, 2/3) are those of Maddison et al. 2017 for binary latents.
DENSITY = {"name": "density", "prior_temperature": 0.5}
MASS, ANALYTIC = {"name": "mass"}, {"name": "analytic"}
METHODS: dict[str, tuple[dict[str, str], dict[str, Any], float]] = {
    "factorial, Concrete density": ({"prior": "bernoulli"}, {**DENSITY, "samples": 1}, 2 / 3),
    "factorial, relaxed mass, K = 1": ({"prior": "bernoulli"}, {**MASS, "samples": 1}, 0.25),
    "factorial, relaxed mass, K = 5": ({"prior": "bernoulli"}, {**MASS, "samples": 5}, 0.25),
    "factorial, relaxed mass, K = 20": ({"prior": "bernoulli"}, {**MASS, "samples": 20}, 0.25),
    "GumBolt, K = 1": ({"prior": "rbm"}, {**MASS, "samples": 1}, 0.25),
    "GumBolt, K = 5": ({"prior": "rbm"}, {**MASS, "samples": 5}, 0.25),
    "GumBolt, K = 20": ({"prior": "rbm"}, {**MASS, "samples": 20}, 0.25),
    "RBM, spike and exponential, K = 1": (
        {"prior": "rbm", "latents": "spike_exponential"},
        {**ANALYTIC, "samples": 1},
        0.25,
    ),
    "RBM, power functions, K = 1": ({"prior": "rbm", "latents": "power"}, {**ANALYTIC, "samples": 1}, 0.25),
}
DIGITS_SHAPES = {"factorial": {"groups": [32], "hidden": [64]}, "hierarchical": {"groups": [16, 16], "hidden": [64]}}
MNIST_SHAPES = {
    "200 linear": {"groups": [200], "hidden": []},
    "200 nonlinear": {"groups": [200], "hidden": [200, 200]},
    "200+200 nonlinear": {"groups": [200, 200], "hidden": [200, 200]},
    "4x100 nonlinear": {"groups": [100, 100, 100, 100], "hidden": [200, 200]},
}
# One recipe for all contestants, its learning rate by trials of 3 and 4 epochs on the validation split. A linear run
# takes minutes at K = 1, half an hour at K = 20; a nonlinear one about three times as long.
MNIST_TRAINING = {"learning_rate": 1e-2, "adam_eps": 1e-8, "weight_decay": 0.0, "warm_up": 0.0, "checkpoint_every": 250}
MNIST_EPOCHS = 30
MNIST_TEMPERATURES = {"density": 2 / 3, "analytic": 1 / 7, "mass": 1 / 7}

# Learning rates of the estimators of structured prediction, by validation pictures: the relaxations' between 0.005 and
# 0.01 (10 epochs, temperature 1; 0.5 was worse), the score function's between 0.003 and 0.01 (6 epochs); the last one
# has not been tried.
STRUCTURED_RATES = {
    "relaxed": 0.01,
    "straight_through_relaxed": 0.01,
    "score_function": 0.01,
    "straight_through": 0.01,
}


def configuration(arguments: argparse.Namespace, method: str, shape: str, seed: int) -> dict[str, Any]:
    """The configuration of one run, as a mapping."""
    model, objective, temperature = METHODS[method]
    digits = arguments.data == "digits"
    epochs = arguments.epochs or (100 if digits else MNIST_EPOCHS)
    training = {} if digits else MNIST_TRAINING
    return {
        "name": f"{shape}, {method}, seed {seed}",
        "seed": seed,
        "data": {
            "name": arguments.data,
            "folder": None if arguments.data_dir is None else str(arguments.data_dir),
            "binarisation": "dynamic" if digits else "static",
        },
        "model": {**model, **(DIGITS_SHAPES if digits else MNIST_SHAPES)[shape]},
        "objective": objective,
        "training": {
            **training,
            "epochs": epochs,
            "temperature": {
                "name": "constant",
                "start": temperature if digits else MNIST_TEMPERATURES[objective["name"]],
            },
            "evaluate_every": 20 if digits else max(1, epochs // 15),
        },
        "evaluation": {"samples": arguments.samples, "max_pictures": arguments.pictures},
        "device": arguments.device,
    }


def run_one(arguments: argparse.Namespace, method: str, shape: str, seed: int) -> dict[str, Any]:
    """Make one run, or find it made."""
    from sparsecbm._base.files import read_json
    from sparsecbm.config import VaeConfig, build_config
    from sparsecbm.runs import vae_run

    epochs = "" if arguments.epochs is None else f" {arguments.epochs} epochs"
    words = f"{arguments.data} {shape} {method} {seed}{epochs}".replace(",", "").replace(" = ", "").replace("+", "-")
    folder = arguments.out / "-".join(words.split())
    if (folder / "metrics.json").exists():
        return read_json(folder / "metrics.json")
    config = build_config(configuration(arguments, method, shape, seed) | {"output": str(folder)}, kind=VaeConfig)
    return vae_run(config).metrics


def interval(values: list[float]) -> str:
    """Mean and its 95% interval over seeds (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    from scipy.stats import t

    mean = statistics.mean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def bounded(runs: list[dict[str, Any]]) -> str:
    """Mean likelihood and its interval over seeds, marked as a lower bound where samples do not support an estimate."""
    supported = all(run["test"].get("population_interval") is not None for run in runs)
    return ("" if supported else ">= ") + interval([run["test"]["log_likelihood"] for run in runs])


def table(arguments: argparse.Namespace) -> None:
    """Make what is missing and print the table, and what the RBM and the choice of KL bring, seed by seed."""
    from rich.console import Console
    from rich.table import Table

    from sparsecbm._base.progress import ProgressBar

    shapes = list(DIGITS_SHAPES if arguments.data == "digits" else MNIST_SHAPES)
    shapes = [shape for shape in shapes if arguments.shapes is None or shape in arguments.shapes]
    methods = [method for method in METHODS if arguments.methods is None or method in arguments.methods]
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    jobs = [(s, shape, method) for s in range(arguments.seeds) for shape in shapes for method in methods]
    with ProgressBar("runs", len(jobs)) as bar:
        for seed, shape, method in jobs:
            made.setdefault((shape, method), []).append(run_one(arguments, method, shape, seed))
            bar.update(1, note=f"{shape}, {method}")
    if arguments.json:
        rows = [run | {"shape": shape, "method": method} for (shape, method), runs in made.items() for run in runs]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.draw:
        draw_curves(arguments.draw, made, arguments.data)
    console = Console(width=130)
    for shape in shapes:
        sheet = Table(title=f"{arguments.data}, {shape}: test nats, mean (95% interval over {arguments.seeds} seeds)")
        for column in (
            "method",
            "nats (>=: a bound)",
            "ELBO",
            "epochs",
            "train s",
            "ms a step",
            "median ESS",
        ):
            sheet.add_column(column, justify="left" if column == "method" else "right")
        for method in methods:
            runs = made[shape, method]
            sheet.add_row(
                method,
                bounded(runs),
                interval([run["test"]["elbo"] for run in runs]),
                str(runs[0]["epochs"]),
                f"{statistics.median(run['seconds']['training'] for run in runs):.1f}",
                f"{statistics.median(1e3 * run['seconds']['training'] / run['steps'] for run in runs):.2f}",
                f"{statistics.median(run['test']['effective_sample_size'] for run in runs):.0f}",
            )
        console.print(sheet)
        pairs = [(f"GumBolt, K = {k}", f"factorial, relaxed mass, K = {k}") for k in (1, 5, 20)]
        pairs += [("factorial, relaxed mass, K = 1", "factorial, Concrete density")]
        pairs += [("GumBolt, K = 1", "factorial, Concrete density"), ("GumBolt, K = 20", "GumBolt, K = 1")]
        for one, other in pairs:
            if one in methods and other in methods:
                gains = [
                    a["test"]["log_likelihood"] - b["test"]["log_likelihood"]
                    for a, b in zip(made[shape, one], made[shape, other])
                ]
                console.print(f"  {one} less {other}, paired by seed: {interval(gains)}")


def family(arguments: argparse.Namespace) -> None:
    """The table of MNIST and that of Omniglot, with `--draw` or `--json` a file each, named after the data."""
    for data in ("mnist", "omniglot"):
        named = {
            key: path and path.with_stem(f"{path.stem}_{data}")
            for key, path in (("draw", arguments.draw), ("json", arguments.json))
        }
        table(argparse.Namespace(**{**vars(arguments), **named, "data": data}))


COLOURS = {
    "factorial, Concrete density": "#0b6e99",
    "factorial, relaxed mass, K = 1": "#7c3aed",
    "GumBolt, K = 1": "#f59e0b",
    "GumBolt, K = 5": "#ea580c",
    "GumBolt, K = 20": "#7c2d12",
    "RBM, spike and exponential, K = 1": "#0f766e",
    "RBM, power functions, K = 1": "#be185d",
}


def draw_curves(path: Path, made: dict[tuple[str, str], list[dict[str, Any]]], data: str) -> None:
    """Draw validation against the epoch of each method's first seed, and its test figure, a panel a shape."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = list(dict.fromkeys(shape for shape, _ in made))
    figure = Figure(figsize=(5.4 * len(shapes), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    for number, shape in enumerate(shapes):
        axes = figure.add_subplot(1, len(shapes), number + 1)
        lines = {m: runs[0] for (s, m), runs in made.items() if s == shape and m in COLOURS}
        last = max(run["epochs"] for run in lines.values())
        for method, run in sorted(lines.items(), key=lambda pair: -pair[1]["test"]["log_likelihood"]):
            epochs, values = zip(*((entry["epoch"], entry["val_score"]) for entry in run["history"]))
            test = run["test"]["log_likelihood"]
            axes.plot(epochs, values, color=COLOURS[method], linewidth=1.8, label=f"{method}: {test:.1f}")
            axes.plot([1.03 * last], [test], marker="D", color=COLOURS[method], markersize=6, clip_on=False)
        ends = [run["history"][-1]["val_score"] for run in lines.values()]
        tops = [run["test"]["log_likelihood"] for run in lines.values()]
        axes.set_ylim(min(ends) - 12, max(tops) + 2)
        axes.set_xlim(0, 1.05 * last)
        axes.set_title(f"{data.upper() if data == 'mnist' else data.capitalize()}, {shape}", loc="left", fontsize=11)
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(
            frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(-0.02, -0.13), title="test nats (diamonds)",
            alignment="left",
        )  # fmt: skip
        if not number:
            axes.set_ylabel("validation nats, 10 hard samples (lines)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def alternate(steps: dict[str, Callable[[], None]], blocks: int, size: int) -> dict[str, list[float]]:
    """Milliseconds a step, in alternating blocks of `size` steps on one thread, the first block left out."""
    from sparsecbm._base.threads import single_threaded_kernels

    spent: dict[str, list[float]] = {name: [] for name in steps}
    with single_threaded_kernels():
        for block in range(blocks + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                for _ in range(size):
                    step()
                if block:
                    spent[name].append((time.perf_counter() - start) / size * 1e3)
    return spent


def training_step(task: Task, x: torch.Tensor, generator: torch.Generator) -> Callable[[], None]:
    """One step of training `task` on the batch `x`, as a function."""
    import torch

    from sparsecbm.vae.tasks import StepContext

    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3, eps=1e-3, fused=True)

    def step() -> None:
        drawn = task.draw(len(x), generator=generator, like=x)
        loss, _ = task({"x": x}, drawn, StepContext(0.25, 1.0, 1 / len(x)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def random_batch(pixels: int) -> torch.Tensor:
    """A batch of 100 random binary pictures."""
    import numpy as np
    import torch

    return torch.from_numpy((np.random.default_rng(0).random((100, pixels)) < 0.3).astype(np.float32))


def report_ratio(name: str, spent: dict[str, list[float]]) -> dict[str, Any]:
    """Print medians and the median ratio of the second to the first; return them."""
    (first, a), (second, b) = spent.items()
    ratio = statistics.median(y / x for x, y in zip(a, b))
    print(f"{name}: {first} {statistics.median(a):.2f} ms, {second} {statistics.median(b):.2f} ms: {ratio:.2f} times")
    return {"name": name, first: statistics.median(a), second: statistics.median(b), "ratio": ratio}


def speed(arguments: argparse.Namespace) -> None:
    """Cost of a training step with an RBM prior, 100 chains x 10 sweeps, over the same step without."""
    import torch

    from sparsecbm.vae import DensityTask, DiscreteVAE, make_negative_phase, make_objective

    shapes = {
        "digits 64, 16+16, hidden 64": (64, [32], [64]),
        "mnist 784, 200, linear": (784, [200], []),
        "mnist 784, 200+200, hidden 200, 200": (784, [200, 200], [200, 200]),
    }
    for name, (pixels, groups, hidden) in shapes.items():
        steps = {}
        for prior in ("bernoulli", "rbm"):
            generator = torch.Generator().manual_seed(0)
            vae = DiscreteVAE(pixels, groups=groups, hidden=hidden, prior=prior, generator=generator)
            phase = None
            if prior == "rbm":
                phase = make_negative_phase("persistent", vae.prior.rbm, seed=0, chains=100, sweeps=10)
            steps[prior] = training_step(
                DensityTask(vae, make_objective("mass"), phase), random_batch(pixels), generator
            )
        report_ratio(name, alternate(steps, arguments.blocks, 20))


def task_run(arguments: argparse.Namespace, config: str, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Run a built-in configuration with changes, or find it run."""
    from sparsecbm._base.files import read_json
    from sparsecbm.config import VaeConfig, load_config
    from sparsecbm.runs import vae_run

    folder = arguments.out / "-".join(f"{config} {name}".split())
    if (folder / "metrics.json").exists():
        return read_json(folder / "metrics.json")
    changes = {**overrides, "output": str(folder), "device": arguments.device}
    if arguments.data_dir is not None:
        changes["data.folder"] = str(arguments.data_dir)
    if arguments.epochs is not None:
        changes["training.epochs"] = arguments.epochs
    if arguments.pictures is not None:
        changes["evaluation.max_pictures"] = arguments.pictures
    return vae_run(
        load_config(config, [f"{key}={json.dumps(value)}" for key, value in changes.items()], kind=VaeConfig)
    ).metrics


def structured(arguments: argparse.Namespace) -> None:
    """Structured prediction on MNIST, 392-200-200-392: negative log-likelihood of the lower half, by estimator."""
    rows = []
    found: dict[str, list[float]] = {name: [] for name in arguments.estimators or STRUCTURED_RATES}
    for seed, estimator in itertools.product(range(arguments.seeds), found):
        rate = STRUCTURED_RATES[estimator]
        changes = {"objective.estimator": estimator, "training.learning_rate": rate, "seed": seed}
        run = task_run(arguments, "vae_mnist_structured", f"{estimator} {seed}", changes)
        rows.append(run | {"estimator": estimator, "learning_rate": rate})
        test = run["test"]
        found[estimator].append(-test["log_likelihood"])
        wide = test["population_interval"]
        spread = "a bound alone" if wide is None else f"{-wide[1]:.2f} to {-wide[0]:.2f}"
        print(
            f"{estimator:26} seed {seed}: NLL {'<= ' if wide is None else ''}{-test['log_likelihood']:.2f} ({spread}; "
            f"{test['effective_sample_size']:.0f} effective samples) on {test['n_pictures']} "
            f"pictures, {test['samples']} samples; {run['epochs']} epochs, {run['seconds']['training']:.0f} s"
        )
    for estimator, values in found.items():
        print(f"{estimator:26} {interval(values)} over {len(values)} seeds")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def semisupervised(arguments: argparse.Namespace) -> None:
    """Semi-supervised MNIST, 100 labels: accuracy by relaxation and by marginalisation, and the cost of a step."""
    import torch

    from sparsecbm.vae.tasks import LabelledVAE, SemiSupervisedTask

    ratios, rows = [], []
    for classes in (10, 100):
        steps = {}
        for name in ("relaxation", "marginalisation"):
            generator = torch.Generator().manual_seed(0)
            model = LabelledVAE(784, classes, generator=generator)
            known = random_batch(784), torch.arange(100) % classes
            task = SemiSupervisedTask(model, *known, marginalise=name == "marginalisation")
            steps[name] = training_step(task, random_batch(784), generator)
        spent = alternate(steps, max(3, arguments.blocks // 4), 5 if classes == 10 else 1)
        ratios.append(report_ratio(f"{classes} classes", spent))
    for seed in range(arguments.seeds):
        for name, marginalise in (("relaxation", False), ("marginalisation", True)):
            overrides = {"objective.marginalise": marginalise, "seed": seed}
            run = task_run(arguments, "vae_mnist_semisupervised", f"{name} {seed}", overrides)
            rows.append(run | {"method": name})
            print(
                f"{name:16} seed {seed}: accuracy {run['test']['accuracy']:.2%} of {run['test']['n_pictures']}, "
                f"{run['epochs']} epochs, {run['seconds']['training']:.0f} s"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"milliseconds": ratios, "runs": rows}, indent=1) + "\n")


def convolutional(arguments: argparse.Namespace) -> None:
    """Semi-supervised MNIST with a convolutional classifier: test accuracy, a hundred other labels a seed."""
    rows = []
    for seed in range(arguments.seeds):
        run = task_run(arguments, "vae_mnist_convolutional", str(seed), {"seed": seed})
        rows.append(run)
        held = ", ".join(f"{entry['val_score']:.2%}" for entry in run["history"])
        print(f"seed {seed}: {run['test']['accuracy']:.2%} of {run['test']['n_pictures']}; validation {held}")
    print(f"mean: {interval([100 * run['test']['accuracy'] for run in rows])}% over {len(rows)} seeds")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    jobs = {
        "likelihood": table,
        "family": family,
        "speed": speed,
        "structured": structured,
        "semisupervised": semisupervised,
        "convolutional": convolutional,
    }
    parser.add_argument("what", nargs="?", choices=list(jobs), default="likelihood")
    parser.add_argument("--data", choices=("digits", "mnist", "omniglot"), default="digits")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder with mnist/mnist.npz, omniglot/chardata.mat or a part; without it MNIST comes from the hub",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--samples", type=int, default=4000, help="hard importance samples a test picture")
    parser.add_argument("--pictures", type=int, help="at most so many test pictures")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS))
    parser.add_argument("--shapes", nargs="*", choices=[*DIGITS_SHAPES, *MNIST_SHAPES])
    parser.add_argument("--estimators", nargs="*", choices=list(STRUCTURED_RATES), help="of structured prediction")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_vae"))
    parser.add_argument("--json", type=Path, help="also write every run's metrics here")
    parser.add_argument("--draw", type=Path, help="also draw learning curves here, a PNG (likelihood)")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of steps, for timing")
    arguments = parser.parse_args()
    jobs[arguments.what](arguments)


if __name__ == "__main__":
    main()
