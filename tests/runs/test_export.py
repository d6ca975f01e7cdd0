"""A model as one graph: the numbers of the model, in onnxruntime, by torch.export, in a browser without a network.

SPARSECBM_EXPORT_ALL=1 runs onnxruntime on every architecture: a minute and a half."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import KINDS, pictures, save_open_clip, save_transformers

from sparsecbm import SparseCBMClassifier, load_encoder, load_images
from sparsecbm._base.errors import InputError
from sparsecbm.runs.export import export_run
from sparsecbm.runs.graph import OUTPUTS, run_onnx

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot_report.py"
TOLERANCE = 1e-5


def saved(spec: str, folder: Path, images, **options) -> Path:
    """A small model of an encoder, which it remembers."""
    encoder = load_encoder(spec, device="cpu")
    vectors = encoder.encode_images(images)
    concepts = np.random.default_rng(0).normal(size=(12, encoder.embed_dim))
    settings = {"max_active_concepts": 4, "concepts_per_class": 3, "max_iter": 20, "random_state": 0} | options
    names = [f"concept {j}" for j in range(12)]
    model = SparseCBMClassifier(concepts, names, **settings).fit(vectors, np.arange(len(vectors)) % 4)
    model.metadata_ = {"encoder": {"spec": spec, "fingerprint": encoder.fingerprint, "precision": "float32"}}
    model.save(folder)
    return folder


def expected(folder: Path, spec: str, images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    model = SparseCBMClassifier.load(folder)
    vectors = load_encoder(spec, device="cpu").encode_images(images)
    chances, activations = model.predict_proba(vectors), model.transform(vectors)
    return chances, activations, activations * model.head_weights_[chances.argmax(1)]


def onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f'{package} is not installed: pip install "sparsecbm[export]"')


@pytest.fixture(scope="module")
def bird_model(tmp_path_factory) -> Path:
    return saved("bundled", tmp_path_factory.mktemp("bird") / "model", load_images("birds", "train", max_images=60))


def test_a_graph_of_torch_gives_the_numbers_of_the_model(bird_model, tmp_path) -> None:
    done = export_run(bird_model, tmp_path / "bird.pt2")
    assert done.difference <= TOLERANCE
    extra = {"sparsecbm.json": ""}
    program = torch.export.load(str(tmp_path / "bird.pt2"), extra_files=extra)
    names = json.loads(extra["sparsecbm.json"])
    images = load_images("birds", "test", max_images=40)
    encoder = load_encoder("bundled", device="cpu")
    made = program.module()(torch.stack([encoder.preprocess(images[i]) for i in range(len(images))]))
    for part, other in zip(made, expected(bird_model, "bundled", images)):
        np.testing.assert_allclose(part.detach().numpy(), other, atol=TOLERANCE)
    assert names["concepts"] == [f"concept {j}" for j in range(12)]
    assert (names["picture"]["shape"], names["picture"]["mean"]) == ([3, 64, 64], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("kind", KINDS if os.environ.get("SPARSECBM_EXPORT_ALL") else ["siglip2"])
def test_onnxruntime_gives_the_numbers_of_the_model(kind: str, tmp_path: Path) -> None:
    onnx()
    import onnx as library

    made = save_open_clip(tmp_path / "e") if kind == "open_clip" else save_transformers(kind, tmp_path / "e")
    spec = f"open_clip:local-dir:{made}" if kind == "open_clip" else f"transformers:{made}"
    signed = {"nonnegative": False} if kind == "clip" else {}
    folder = saved(spec, tmp_path / "model", pictures(24), **signed)
    done = export_run(folder, tmp_path / "m.onnx", encoder=spec)
    assert done.difference <= TOLERANCE
    encoder, images = load_encoder(spec, device="cpu"), pictures(7, seed=5, size=44 if kind != "siglip2" else 40)
    if kind == "siglip2":  # its patches are of one shape in a graph: that of a square picture
        images = [image.resize((40, 40)) for image in images]
    given = next(iter(encoder._image_inputs(images).values())).numpy()
    for part, other in zip(run_onnx(tmp_path / "m.onnx", given), expected(folder, spec, images)):
        np.testing.assert_allclose(part, other, atol=TOLERANCE)
    graph = library.load(tmp_path / "m.onnx")
    assert [held.name for held in graph.graph.output] == list(OUTPUTS)
    assert json.loads({p.key: p.value for p in graph.metadata_props}["sparsecbm"])["classes"] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "-o MODEL.onnx"), ({"output": "m.txt"}, r"ends in \.onnx or \.pt2"), ({"output": "a.pt2", "web": "w"}, "or")],
)
def test_what_is_neither_a_graph_nor_a_page_is_said(given: dict, message: str, bird_model) -> None:
    with pytest.raises(InputError, match=message):
        export_run(bird_model, **given)


def test_the_page_explains_a_bird_without_a_network(bird_model, tmp_path) -> None:
    onnx()
    spec = importlib.util.spec_from_file_location("screenshot_report", SCRIPT)
    shots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shots)
    if shots.find_chromium() is None or shutil.which("npm") is None:
        pytest.skip("Chromium or npm is not installed")
    pytest.importorskip("tornado", reason="tornado, which drives Chromium, is not installed")
    try:
        export_run(bird_model, web=tmp_path / "web")
    except InputError as error:
        if "npm cannot fetch" not in str(error):
            raise
        pytest.skip(f"onnxruntime-web cannot be had: {error}")
    bird = load_images("birds", "test", max_images=1)[0]
    wide = bird.resize((150, 100))  # a photo's shape: the page must shrink and cut it as the encoder does

    async def visit(page, url: str) -> list[dict]:
        await page.view(800)
        await page.open(url)
        await page.evaluate("ready")
        answers = []
        for image in (bird, wide):
            held = io.BytesIO()
            image.save(held, "PNG")
            data = base64.b64encode(held.getvalue()).decode()
            code = f"Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0))"
            answers.append(await page.evaluate(f"explain(new File([{code}], 'bird.png', {{type: 'image/png'}}))"))
        assert await page.evaluate("document.querySelector('#said').textContent")
        assert [one for one in page.requests if not one.startswith((url, "blob:", "data:"))] == []
        assert not [line for line in page.console if "error" in line or "exception" in line], page.console
        return answers

    async def run() -> list[dict]:
        async with shots.browser() as page:
            return await visit(page, f"http://127.0.0.1:{server.server_port}/")

    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answers = asyncio.run(run())
    finally:
        server.shutdown()
        server.server_close()
    chances, _, parts = expected(bird_model, "bundled", [bird, wide])
    for i, tolerance in enumerate((TOLERANCE, 1e-3)):  # resized pictures are rounded to bytes twice
        np.testing.assert_allclose(answers[i]["probabilities"], chances[i], atol=tolerance)
        np.testing.assert_allclose(answers[i]["contributions"], parts[i], atol=10 * tolerance)
