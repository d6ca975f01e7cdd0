"""One of the processes that test_bottleneck_training starts: train and write what came out."""

import json
import sys
from pathlib import Path

import test_bottleneck_training as tests

if __name__ == "__main__":
    result = {}
    for loss in ("gumbel", "contrastive"):
        X, y, C = tests.problem()
        # A run that ends its log leaves the other processes reachable for the next one.
        run = tests.trainer(X, C, loss, log_with="tensorboard", log_dir=str(Path(sys.argv[1]).parent))
        history = run.fit(X, y, X, y)
        result[loss] = [entry["loss"] for entry in history] + run.model.head.weight.flatten().tolist()
    result["processes"] = run.accelerator.num_processes
    if run.accelerator.is_main_process:
        with open(sys.argv[1], "w") as handle:  # noqa: PTH123 - a worker script
            json.dump(result, handle)
