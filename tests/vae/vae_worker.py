"""Processes that `test_vae_training` starts: one to be killed, or several to train as one."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import test_vae_training as tests


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    data = {"x": tests.stripes()}, {"x": tests.stripes(40, 1)}
    if what == "killed":
        run = tests.trainer(tests.LONG, checkpoint_dir=path)
        zero_grad = run.optimizer.zero_grad
        run.optimizer.zero_grad = lambda: os.kill(os.getpid(), signal.SIGKILL) if run.steps == 57 else zero_grad()
        run.fit(*data)
    else:
        run = tests.trainer(batch_norm=False)
        history = run.fit(*data)
        weights = {name: value.flatten().tolist() for name, value in tests.state(run).items()}
        made = {"bounds": [entry["bound"] for entry in history], "weights": weights}
        if run.accelerator.is_main_process:
            path.write_text(json.dumps({**made, "processes": run.accelerator.num_processes}))


if __name__ == "__main__":
    main()  # what it trained is gone before the interpreter ends
