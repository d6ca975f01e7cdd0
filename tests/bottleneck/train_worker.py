"""One of the processes that test_bottleneck_training starts: train and write what came out."""

import json
import sys

import test_bottleneck_training as tests

if __name__ == "__main__":
    result = {}
    for loss in ("gumbel", "contrastive"):
        X, y, C = tests.problem()
        run = tests.trainer(X, C, loss)
        history = run.fit(X, y, X, y)
        result[loss] = [entry["loss"] for entry in history] + run.model.head.weight.flatten().tolist()
    result["processes"] = run.accelerator.num_processes
    if run.accelerator.is_main_process:
        with open(sys.argv[1], "w") as handle:  # noqa: PTH123 - a worker script
            json.dump(result, handle)
