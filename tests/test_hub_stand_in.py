"""What a user meets on a hub, by the real clients against the stand-in of `tests/helpers/hub_server.py`.

Not stood in for: the Xet protocol. hf_xet is on, finds a server without it, and downloads go by plain HTTP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "helpers" / "hub_scenarios.py"
GOOD = {
    "push_to_hub": "3 files up, 1 of them large",
    "from_pretrained": "predicts the same; progress shown: True",
    "from_pretrained again": "predicts the same, 0 large files fetched",
    "from_pretrained, private, with a token": "predicts the same",
    "from_pretrained, gated, with access": "predicts the same",
    "from_pretrained, connection dropped midway": "predicts the same; went on at ['bytes=4096-']",
    "ConceptSet.from_pretrained": "True",
    "encoder open_clip": "the encoder of the folder, 1 large files fetched",
    "encoder open_clip again": "the encoder of the folder, 0 large files fetched",
    "encoder transformers": "the encoder of the folder, 1 large files fetched",
    "encoder transformers again": "the encoder of the folder, 0 large files fetched",
    "hub:OWNER/DATASET": "10 pictures, RGB, classes wren, robin",
    "hub:OWNER/DATASET again": "4 pictures, RGB, classes wren, robin, 0 large files fetched",
    "hub:OWNER/DATASET, classes in columns": "('label', 'crest'), [[0, 0], [1, 0], [0, 1], [1, 1]]",
    "hub:OWNER/DATASET:CONFIG": "2 pictures, RGB, classes wren, robin",
    **{
        f"{how}: {what}, fetched before": happened
        for how in ("no network", "HF_HUB_OFFLINE=1")
        for what, happened in (
            ("model", "SparseCBMClassifier"), ("encoder open_clip", "24"), ("encoder transformers", "24"),
            ("data set", "10"),
        )
    },
}  # fmt: skip
ABSENT, LOGIN, UNWELL = "the hub has no such repository, or it is private", "log in with `hf auth login`", "HTTP 503"
BAD = {
    "push_to_hub, to a server without Xet": "set HF_HUB_DISABLE_XET=1",
    "push_to_hub without a token": LOGIN,
    "push_to_hub, token expired": LOGIN,
    "from_pretrained, token expired": "token is missing, wrong or expired",
    "from_pretrained, no such repository": ABSENT,
    "from_pretrained, no such revision": "no such revision",
    "from_pretrained, no name of a repository": "give the name as OWNER/NAME",
    "from_pretrained, private, without a token": ABSENT,
    "from_pretrained, gated, without a token": "it is gated: ask for access",
    "from_pretrained, gated, no access": "it is gated: ask for access",
    "from_pretrained, files missing": "it has no model.safetensors",
    "from_pretrained, server in trouble (503)": UNWELL,
    "from_pretrained, forbidden (403)": "the hub forbids it",
    "hub:OWNER/DATASET, no such configuration": "'tiny' not found. Available: ['default', 'small']",
    "hub:OWNER/DATASET, a zip with a folder a class": "folders in an archive",
    "hub:OWNER/DATASET, a zip that is a bomb": "'train.zip': its 1,372,812 bytes would unfold to 314,572,800",
    "hub:OWNER/DATASET, a parquet file that is a bomb": "would unfold to 536,870,912, a decompression bomb",
    "hub:OWNER/DATASET, a name that leads out of it": "'../../../../../../../../etc/passwd'",
    "hub:OWNER/DATASET, no such data set": ABSENT,
    "hub:OWNER/DATASET, gated": "it is gated: ask for access",
    "hub:OWNER/DATASET, private": ABSENT,
    "hub:OWNER/DATASET, token expired": "token is missing, wrong or expired",
    "hub:OWNER/DATASET, server in trouble (503)": UNWELL,
    **{
        f"encoder {kind}, {what}": words
        for kind in ("open_clip", "transformers")
        for what, words in (
            ("no such repository", ABSENT), ("gated", "it is gated: ask for access"),
            ("server in trouble (503)", UNWELL),
        )
    },
    **{
        f"{how}: {what}, not fetched": "run once with a network connection"
        for how in ("no network", "HF_HUB_OFFLINE=1")
        for what in ("model", "encoder open_clip", "encoder transformers", "data set")
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    run = subprocess.run([sys.executable, str(WORKER), "--json"], env=os.environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return {row["scenario"]: row for row in json.loads(run.stdout)}


def test_what_was_asked_for_comes(rows: dict[str, dict]) -> None:
    assert {name: rows[name]["happened"] + rows[name]["saw"] for name in GOOD} == GOOD
    assert "/commit/" in rows["ConceptSet.push_to_hub"]["happened"]
    assert set(GOOD) | set(BAD) | {"ConceptSet.push_to_hub"} == set(rows)


def test_what_cannot_come_is_one_line_that_says_why(rows: dict[str, dict]) -> None:
    for name, words in BAD.items():
        row = rows[name]
        assert row["happened"] in ("InputError", "StoredFileError"), row
        assert words in row["saw"], row
        assert "\n" not in row["saw"], row
        assert len(row["saw"]) < 420, row
