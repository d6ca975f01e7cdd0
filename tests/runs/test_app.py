"""The interactive page: what it computes, what it refuses, and, where gradio is installed, what it serves."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from sparsecbm import SparseCBMClassifier, load_encoder, load_images, runs
from sparsecbm._base.errors import InputError
from sparsecbm.runs import app, app_session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model of birds on random concept directions, saved as `train` would."""
    encoder = load_encoder("bundled")
    images = load_images("birds", "train", max_images=60)
    rng = np.random.default_rng(0)
    names = [f"concept {j}" for j in range(30)]
    model = SparseCBMClassifier(rng.normal(size=(30, 128)), names, max_active_concepts=6, max_iter=30, random_state=0)
    model.fit(encoder.encode_images(images), images.labels)
    model.metadata_ = {
        "class_names": list(images.class_names),
        "encoder": {"spec": "bundled", "fingerprint": encoder.fingerprint, "precision": "float32"},
        "images": {"spec": "birds", "max_test": 40},
    }
    path = tmp_path_factory.mktemp("app") / "model"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def session(folder):
    return app.open_session(folder)


def test_inference_model_is_the_classifier_bit_for_bit(folder, session) -> None:
    whole = SparseCBMClassifier.load(folder)
    X = session.encoder.encode_images(load_images("birds", "test", max_images=10))
    model = session.stored.classifier
    np.testing.assert_array_equal(model.transform(X), whole.transform(X))
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))
    assert model.max_active_concepts == 6
    config = json.loads((folder / "config.json").read_text())
    assert config["class"] == "SparseCBMClassifier"


def test_session_shows_and_moves_what_the_model_computes(session, tmp_path) -> None:
    picture = tmp_path / "bird.png"
    load_images("birds", "test", max_images=3)[2].save(picture)
    ledgers = session.look(picture)
    sliders = session.sliders(ledgers)
    assert len(sliders) == app_session.SLIDERS
    assert [name for name, _, _ in sliders][:3] == [entry.concept for entry in ledgers[0].top(3)]
    for name, value, top in sliders:
        assert value == ledgers.activations[0, ledgers.concepts.index(name)]
        assert value <= top
    assert sum(session.classes(ledgers, k=20).values()) == pytest.approx(1.0)
    same = session.edited(ledgers.activations[0], {})
    np.testing.assert_array_equal(same.scores, ledgers.scores)
    name, value, _ = sliders[0]
    changed = session.edited(ledgers.activations[0], {name: 0.0})
    target = ledgers[0].target
    weight = ledgers.weights[ledgers.classes.index(target), ledgers.concepts.index(name)]
    difference = changed.ledger(0, target).score - ledgers[0].score
    assert difference == pytest.approx(-value * weight)
    assert target in session.smallest_change(ledgers.activations[0])


def test_a_slider_leaves_several_classes_and_probabilities_as_they_were(session, tmp_path) -> None:
    rng, images = np.random.default_rng(1), load_images("birds", "train", max_images=60)
    Y, C = rng.random((60, len(session.stored.class_names))) < 0.4, rng.random((60, 6)) < 0.5
    model = SparseCBMClassifier(rng.normal(size=(6, 128)), max_active_concepts=3, training="sequential")
    model.fit(session.encoder.encode_images(images), Y.astype(int), concept_labels=C)
    held = app.Session(dataclasses.replace(session.stored, classifier=model), session.encoder)
    images[2].save(tmp_path / "bird.png")
    ledgers = held.look(tmp_path / "bird.png")
    row, presence = ledgers.activations[0], ledgers.presence[0]
    np.testing.assert_array_equal(held.edited(row, {}, presence).probabilities, ledgers.probabilities)
    assert ledgers.probabilities.sum() > 1.5  # a sigmoid a class
    moved = held.edited(row, {"concept 4": row[4] + 1}, presence).presence[0]
    np.testing.assert_array_equal(moved, np.where(np.arange(6) == 4, np.nan, presence))


def test_session_says_how_good_the_model_is_and_shows_its_pictures(folder, session) -> None:
    assert session.quality() == ""
    model = SparseCBMClassifier.load(folder)
    model.metadata_["test"] = {"accuracy": 0.5, "n_images": 40}
    told = app.Session(dataclasses.replace(session.stored, classifier=model), session.encoder).quality()
    assert told == "Right on 50.0% of 40 test pictures. What meaningless directions would reach was not measured."
    picture, name = session.example(1)
    assert picture.size == load_images("birds", "test", max_images=app_session.EXAMPLES)[1].size
    assert name == session.example(1 + app_session.EXAMPLES)[1]


def test_uploads_are_checked_before_they_are_unpacked(session, tmp_path) -> None:
    """Too many pixels, a program of PostScript, a text: gradio hands over a file, which sparsecbm's decoder opens."""
    large, program, text = tmp_path / "large.png", tmp_path / "program.png", tmp_path / "text.png"
    Image.new("1", (9000, 9000)).save(large)
    program.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    text.write_bytes(b"no picture")
    for path, words in ((large, "81,000,000 pixels"), (program, "not a picture"), (text, "not a picture")):
        with pytest.raises(InputError, match=words):
            session.look(path)


def test_without_gradio_it_says_what_to_install(folder, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(InputError, match=r'pip install "sparsecbm\[app\]"'):
        runs.app_run(folder)


def test_server_keeps_to_itself(session, tmp_path) -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install .[app]")
    page = app.build_page(session)
    pictures = [block for block in page.blocks.values() if type(block).__name__ == "Image"]
    assert [(block.type, block.image_mode) for block in pictures] == [("filepath", None)]  # not decoded by gradio
    from fastapi.testclient import TestClient

    with TestClient(app.build_server(session), base_url="http://127.0.0.1:7860") as client:
        answer = client.get("/")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "Why this class?" in answer.text
        large = client.post("/gradio_api/upload", files={"files": ("a.png", b"0" * 11_000_000)})
        assert large.status_code == 413
        assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)
        # A message that names a file of this computer once had it copied to where the page hands out files.
        secret = tmp_path / "secret.txt"
        secret.write_text("top secret")
        steps = client.get("/config").json()["dependencies"]
        look = next(step["id"] for step in steps if step["targets"] and step["targets"][0][1] == "change")

        def send(path: str, name: str) -> tuple[int, str]:
            data = [{"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}]
            message = {"data": data, "fn_index": look, "session_hash": name}
            sent = client.post("/gradio_api/queue/join", json=message)
            if sent.status_code != 200:
                return sent.status_code, ""
            with client.stream("GET", f"/gradio_api/queue/data?session_hash={name}") as lines:
                return 200, next(line for line in lines.iter_lines() if "process_completed" in line)

        said = send(str(secret), "a")[1]
        assert "was not uploaded" in said
        assert '"success":false' in said.replace(" ", "")
        assert "gradio/" not in said
        assert send("http://example.org/a.png", "b")[0] == 403
        picture = tmp_path / "own.png"
        Image.new("RGB", (64, 64), "teal").save(picture)
        (uploaded,) = client.post("/gradio_api/upload", files={"files": ("own.png", picture.read_bytes())}).json()
        said = send(uploaded, "c")[1]
        assert '"success":true' in said.replace(" ", "")
        for path in ("/gradio_api/file=/tmp/a%00b", "/static/a%00b", f"/gradio_api/file={'a' * 3000}", "/a%00b?x=%00"):
            assert client.get(path).status_code == 400, path
        assert client.get("/gradio_api/file=http://127.0.0.1:1/x").status_code == 403
        assert client.get("/", headers={"host": "birds.example.org"}).status_code == 403
        assert client.get("/", headers={"origin": "https://example.org"}).status_code == 403
        assert client.get("/config").json()["run_history"] is False
        assert client.get("/gradio_api/runs").status_code == 404
        assert client.get("/config").json()["analytics_enabled"] is False


def test_port_in_use_is_named(folder) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen on"):
            app._check_free("127.0.0.1", taken.getsockname()[1])


# -- sparsecbm edit ----------------------------------------------------------------------------------------------------


def test_edit_is_kept_with_the_model_and_undone(folder, tmp_path) -> None:
    before = SparseCBMClassifier.load(folder)
    made = runs.edit_run(folder, suppress=["concept 3", "concept 4"], output=tmp_path / "edited")
    assert made.measured is not None
    assert made.measured["images"] == 40
    assert made.lines[0] == "suppress concept 3, concept 4 for every class"
    assert "accuracy on birds test (40 images, 1 edit)" in made.lines[1]
    edited = SparseCBMClassifier.load(tmp_path / "edited")
    assert not edited.head_weights_[:, [3, 4]].any()
    np.testing.assert_array_equal(SparseCBMClassifier.load(folder).head_weights_, before.head_weights_)
    one = runs.edit_run(tmp_path / "edited", suppress=["concept 5"], classes=["Farrow jay"], measure=False)
    assert len(runs.edit_run(tmp_path / "edited").lines) == 3
    assert one.measured is None
    page = runs.report_run(tmp_path / "edited", output=tmp_path / "page.html", examples=1, training=False)
    assert "suppress concept 5 for Farrow jay" in page.path.read_text()
    undone = runs.edit_run(tmp_path / "edited", undo=2)
    assert undone.undone == 2
    assert undone.lines == ["no edits"]
    again = SparseCBMClassifier.load(tmp_path / "edited")
    np.testing.assert_array_equal(again.head_weights_, before.head_weights_)
    for options, match in (
        ({"suppress": ["concept 33"]}, "did you mean 'concept"),
        ({"undo": 1}, "carries 0 edits"),
        ({"classes": ["Farrow jay"]}, "expected both"),
    ):
        with pytest.raises(InputError, match=match):
            runs.edit_run(tmp_path / "edited", **options)
