"""What a user meets on a hub, each by the real client against the stand-in: `python tests/helpers/hub_scenarios.py`.

One process, since clients read HF_ENDPOINT when they are imported. Prints a table, or with --json its rows.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import EXPIRED, GOOD, LARGE, Hub

HOME = Path(tempfile.mkdtemp(prefix="hub-scenarios-"))
HUB = Hub()
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": str(HOME / "hf"),
    "HF_HUB_OFFLINE": "0",
    "HF_DATASETS_OFFLINE": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "SPARSECBM_CACHE": str(HOME / "cache"),
    "OMP_NUM_THREADS": "1",
}
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
    os.environ.pop(name, None)

import huggingface_hub.constants as constants  # noqa: E402
import numpy as np  # noqa: E402

from sparsecbm import ConceptSet, SparseCBMClassifier, load_encoder, load_images  # noqa: E402

ROWS: list[dict[str, Any]] = []
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 0.01))  # clients wait longer and longer before they ask again


def row(scenario: str, run: Callable[[], Any]) -> None:
    """Run one scenario; a row says what came of it, or the one line that the user saw."""
    HUB.requests.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            happened, saw = run(), ""
    except Exception as error:
        happened, saw = type(error).__name__, str(error).replace(HUB.url, "HUB").replace(str(HOME), "HOME")
    # Without its answer the user would not know whether to blame the name, the token or the network.
    ROWS.append({"scenario": scenario, "happened": str(happened), "saw": saw, "requests": list(HUB.requests)})


@contextlib.contextmanager
def token(value: str | None) -> Iterator[None]:
    """Log in, as `hf auth login` does."""
    path = HOME / "hf" / "token"
    path.parent.mkdir(parents=True, exist_ok=True)
    if value:
        path.write_text(value)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def fitted() -> tuple[SparseCBMClassifier, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = np.eye(3, 64)[y] + 0.1 * rng.normal(size=(60, 64))
    concepts = rng.normal(size=(20, 64))
    names = [f"concept {j}" for j in range(20)]
    return SparseCBMClassifier(concepts, names, max_iter=5, random_state=0).fit(X, np.array(["a", "b", "c"])[y]), X


def folder_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pictures_parquet(count: int, seed: int = 0, size: int = 24) -> bytes:
    import datasets
    from tiny_models import pictures

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["wren", "robin"]),
            "crest": datasets.Value("int8"),
        }
    )
    rows = {"image": pictures(count, seed, size), "label": [i % 2 for i in range(count)]}
    rows["crest"] = [i // 2 % 2 for i in range(count)]
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


def pictures_zip(count: int) -> bytes:
    from tiny_models import pictures

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, picture in enumerate(pictures(count)):
            held = io.BytesIO()
            picture.save(held, "PNG")
            archive.writestr(f"{('wren', 'robin')[i % 2]}/{i}.png", held.getvalue())
    return buffer.getvalue()


def bomb_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/0.png", bytes(300 << 20))
    return buffer.getvalue()


def bomb_parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({"label": pa.array(np.zeros(1 << 26, dtype=np.int8))}), buffer)
    return buffer.getvalue()


def models() -> None:
    model, X = fitted()

    def push(name: str, **options: Any) -> Any:
        return model.push_to_hub(name, **options)

    def back(name: str, **options: Any) -> str:
        again = SparseCBMClassifier.from_pretrained(name, **options)
        return "predicts the same" if np.array_equal(again.predict_proba(X), model.predict_proba(X)) else "DIFFERS"

    def pushed() -> str:
        push("ann/model")
        large = sum(method == "PUT" for method, *_ in HUB.requests)
        return f"{len(HUB.repositories['models', 'ann/model'].files)} files up, {large} of them large"

    # The stand-in speaks no Xet, as private hubs do not. Downloads see that and take plain HTTP; uploads must be told.
    with token(GOOD):
        row("push_to_hub, to a server without Xet", lambda: push("ann/model"))
        constants.HF_HUB_DISABLE_XET = True
        row("push_to_hub", pushed)
    constants.HF_HUB_DISABLE_XET = False
    # Nothing here is encrypted: a hundred clients need not read all certificates, as hf_xet would.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = str(HOME)
    row("push_to_hub without a token", lambda: push("ann/other"))
    with token(EXPIRED):
        row("push_to_hub, token expired", lambda: push("ann/other"))
        row("from_pretrained, token expired", lambda: back("ann/model"))

    def first() -> str:
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            said = back("ann/model")
        return f"{said}; progress shown: {'%|' in told.getvalue()}"

    row("from_pretrained", first)
    row("from_pretrained again", lambda: f"{back('ann/model')}, {fetched()} large files fetched")
    row("from_pretrained, no such repository", lambda: back("ann/nothing"))
    row("from_pretrained, no such revision", lambda: back("ann/model", revision="v9"))
    row("from_pretrained, no name of a repository", lambda: back("a/b/c"))
    files = HUB.repositories["models", "ann/model"].files
    HUB.add("models", "ann/private", files, private=True)
    HUB.add("models", "ann/gated", files, gated=True)
    row("from_pretrained, private, without a token", lambda: back("ann/private"))
    row("from_pretrained, gated, without a token", lambda: back("ann/gated"))
    with token("hf_bob"):
        row("from_pretrained, gated, no access", lambda: back("ann/gated"))
    with token(GOOD):
        row("from_pretrained, private, with a token", lambda: back("ann/private"))
        row("from_pretrained, gated, with access", lambda: back("ann/gated"))
    HUB.add("models", "ann/damaged", {"config.json": files["config.json"]})
    row("from_pretrained, files missing", lambda: back("ann/damaged"))
    HUB.add("models", "ann/second", {**files, "config.json": files["config.json"] + b"\n"})
    HUB.refuse += [(503, "/api/models/ann/second"), (503, "/ann/second/")] * 20
    row("from_pretrained, server in trouble (503)", lambda: back("ann/second"))
    HUB.refuse[:] = [(403, "/ann/second")] * 20
    row("from_pretrained, forbidden (403)", lambda: back("ann/second"))
    HUB.refuse.clear()

    def resumed() -> str:
        HUB.drop_after, constants.DOWNLOAD_CHUNK_SIZE = LARGE, 1024  # it goes on from the last whole chunk, of 10 MB
        said = back("ann/model", cache_dir=HOME / "resumed")
        return f"{said}; went on at {[r for m, p, r in HUB.requests if m == 'GET' and r]}"

    row("from_pretrained, connection dropped midway", resumed)
    words = ConceptSet([f"concept {j}" for j in range(500)])
    constants.HF_HUB_DISABLE_XET = True
    with token(GOOD):
        row("ConceptSet.push_to_hub", lambda: words.push_to_hub("ann/words"))
    constants.HF_HUB_DISABLE_XET = False
    row("ConceptSet.from_pretrained", lambda: list(ConceptSet.from_pretrained("ann/words").names) == list(words.names))


def fetched() -> int:
    """How many large files were fetched since the scenario began."""
    return sum(method == "GET" and path.startswith("/elsewhere") for method, path, _ in HUB.requests)


def encoders() -> None:
    from tiny_models import save_open_clip, save_transformers

    for spec, name, folder in (
        ("open_clip:hf-hub:ann/open-clip", "ann/open-clip", save_open_clip(HOME / "made" / "open-clip")),
        ("transformers:ann/clip", "ann/clip", save_transformers("clip", HOME / "made" / "clip")),
    ):
        config = folder / "open_clip_config.json"
        if config.exists():  # a folder keeps its tokenizer beside it; on the hub, it is named
            config.write_text(config.read_text().replace('"local"', f'"{name}"'))
        HUB.add("models", name, folder_files(folder))
        local = f"open_clip:local-dir:{folder}" if "open_clip" in spec else f"transformers:{folder}"

        def same(spec: str = spec, local: str = local) -> str:
            made = load_encoder(spec, device="cpu").fingerprint == load_encoder(local, device="cpu").fingerprint
            return f"{'the encoder of the folder' if made else 'ANOTHER'}, {fetched()} large files fetched"

        kind = spec.split(":")[0]
        row(f"encoder {kind}", same)
        row(f"encoder {kind} again", same)
        prefix = spec.removesuffix(name)
        row(f"encoder {kind}, no such repository", lambda p=prefix: load_encoder(f"{p}ann/nothing"))
        HUB.add("models", f"{name}-gated", HUB.repositories["models", name].files, gated=True)
        row(f"encoder {kind}, gated", lambda p=prefix, n=name: load_encoder(f"{p}{n}-gated"))
        HUB.refuse += [(503, "ann/unwell")] * 40
        HUB.add("models", "ann/unwell", {})
        row(f"encoder {kind}, server in trouble (503)", lambda p=prefix: load_encoder(f"{p}ann/unwell"))
        HUB.refuse.clear()


def data_sets() -> None:
    def look(spec: str, split: str = "train") -> str:
        found = load_images(spec, split)
        return f"{len(found)} pictures, {found[0].mode}, classes {', '.join(found.class_names)}"

    card = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: all/train.parquet}, {split: test, path: all/test.parquet}]
- config_name: small
  data_files: [{split: train, path: small/train.parquet}]
---
"""
    held = {
        "README.md": card,
        "all/train.parquet": pictures_parquet(12),
        "all/test.parquet": pictures_parquet(4, 1),
        "small/train.parquet": pictures_parquet(6, 2),
    }
    HUB.add("datasets", "ann/birds", held)
    row("hub:OWNER/DATASET", lambda: look("hub:ann/birds"))
    row("hub:OWNER/DATASET again", lambda: f"{look('hub:ann/birds', 'test')}, {fetched()} large files fetched")
    several = load_images("hub:ann/birds", "test", class_labels=["label", "crest"])
    row("hub:OWNER/DATASET, classes in columns", lambda: f"{several.class_names}, {several.labels.tolist()}")
    row("hub:OWNER/DATASET:CONFIG", lambda: look("hub:ann/birds:small"))
    row("hub:OWNER/DATASET, no such configuration", lambda: look("hub:ann/birds:tiny"))
    HUB.add("datasets", "ann/zipped", {"train.zip": pictures_zip(8)})
    row("hub:OWNER/DATASET, a zip with a folder a class", lambda: look("hub:ann/zipped"))
    HUB.add("datasets", "ann/bomb", {"train.zip": bomb_zip()})
    row("hub:OWNER/DATASET, a zip that is a bomb", lambda: look("hub:ann/bomb"))
    HUB.add("datasets", "ann/bomb2", {"train.parquet": bomb_parquet()})
    row("hub:OWNER/DATASET, a parquet file that is a bomb", lambda: look("hub:ann/bomb2"))
    outside = json.dumps({"file_name": "../../../../../../../../etc/passwd", "label": "wren"}).encode()
    HUB.add("datasets", "ann/outside", {"metadata.jsonl": outside, "0.png": b"x"})
    row("hub:OWNER/DATASET, a name that leads out of it", lambda: look("hub:ann/outside"))
    row("hub:OWNER/DATASET, no such data set", lambda: look("hub:ann/nothing"))
    HUB.add("datasets", "ann/gated", held, gated=True)
    row("hub:OWNER/DATASET, gated", lambda: look("hub:ann/gated"))
    HUB.add("datasets", "ann/private", held, private=True)
    row("hub:OWNER/DATASET, private", lambda: look("hub:ann/private"))
    HUB.add("datasets", "ann/more", held)
    with token(EXPIRED):
        row("hub:OWNER/DATASET, token expired", lambda: look("hub:ann/more"))
    HUB.add("datasets", "ann/unwell", held)
    HUB.refuse += [(503, "ann/unwell")] * 60
    row("hub:OWNER/DATASET, server in trouble (503)", lambda: look("hub:ann/unwell"))
    HUB.refuse.clear()


def without_network(how: str) -> None:
    """What was fetched is there; what was not is said."""
    row(f"{how}: model, fetched before", lambda: type(SparseCBMClassifier.from_pretrained("ann/model")).__name__)
    row(f"{how}: model, not fetched", lambda: SparseCBMClassifier.from_pretrained("ann/never"))
    for spec in ("open_clip:hf-hub:ann/open-clip", "transformers:ann/clip"):
        kind, prefix = spec.split(":")[0], spec.rsplit("ann/", 1)[0]
        row(f"{how}: encoder {kind}, fetched before", lambda s=spec: load_encoder(s, device="cpu").embed_dim)
        row(f"{how}: encoder {kind}, not fetched", lambda p=prefix: load_encoder(f"{p}ann/never"))
    row(f"{how}: data set, fetched before", lambda: len(load_images("hub:ann/birds", "train")))
    row(f"{how}: data set, not fetched", lambda: load_images("hub:ann/never", "train"))


def main() -> None:
    try:
        models()
        encoders()
        data_sets()
        HUB.close()
        without_network("no network")
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        without_network("HF_HUB_OFFLINE=1")
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    if "--json" in sys.argv:
        print(json.dumps(ROWS))
        return
    print("| scenario | happened | the user saw |\n|---|---|---|")
    for held in ROWS:
        print(f"| {held['scenario']} | {held['happened']} | {' '.join(held['saw'].split())} |")


if __name__ == "__main__":
    main()
