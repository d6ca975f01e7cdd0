"""The CLIP that ships with the package, and the script that makes it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from sparsecbm.data import birds

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "sparsecbm" / "encoders" / "bundled"
# The painting processes import the script by name.
sys.path.insert(0, str(ROOT / "scripts"))
import pretrain_bundled_clip as script  # noqa: E402


@pytest.fixture(scope="module")
def bundled():
    return open_clip.create_model(f"local-dir:{BUNDLED}").eval(), open_clip.get_tokenizer(f"local-dir:{BUNDLED}")


@pytest.fixture(scope="module")
def looks() -> list[dict]:
    rng = np.random.default_rng(0)
    return [script.pretraining_look(rng) for _ in range(3000)]


# --- what ships ------------------------------------------------------------------------------------------------------


def test_package_weighs_at_most_12_megabytes():
    files = [path for path in BUNDLED.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.name for path in files} == set(script.FILES)
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_zero_shot_attributes_of_species_it_never_saw(bundled):
    """A seed that the script never measured on."""
    model, tokenizer = bundled
    images = birds.BirdImages("test", seed=101, n_images=400)
    scores = script.encode_birds(model, images, "encoding") @ script.encode_concepts(model, tokenizer).T
    aucs = script.attribute_aucs(scores, images.attributes)
    assert len(aucs) == len(birds.ATTRIBUTE_NAMES)
    assert np.mean(list(aucs.values())) >= 0.95
    assert min(aucs.values()) >= 0.8


def test_card_reports_what_is_measured(bundled):
    model, tokenizer = bundled
    card = (BUNDLED / "MODEL_CARD.md").read_text(encoding="utf-8")
    stated = float(re.search(r"zero-shot attribute AUC, mean.*\| ([\d.]+) \|", card)[1])
    images = birds.BirdImages("test", seed=0, n_images=1000)
    scores = script.encode_birds(model, images, "encoding") @ script.encode_concepts(model, tokenizer).T
    measured = script.attribute_aucs(scores, images.attributes)
    assert np.mean(list(measured.values())) == pytest.approx(stated, abs=1e-3)
    for name, auc in measured.items():
        assert float(re.search(rf"\| {name} \| ([\d.]+) \|", card)[1]) == pytest.approx(auc, abs=2e-3)


def test_preprocessing_of_the_config_is_that_of_the_training():
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{BUNDLED}")
    picture = birds.BirdImages("test")[2]
    torch.testing.assert_close(preprocess(picture), script.to_tensor(np.asarray(picture)[None])[0])


def test_encodes_100_pictures_a_cpu_second(bundled):
    model, _ = bundled
    pictures = torch.zeros(200, 3, 64, 64)
    with torch.inference_mode():
        model.encode_image(pictures)
        # CPU time of all threads, so that a busy machine does not fail the test.
        begun = time.process_time()
        model.encode_image(pictures)
    assert 200 / (time.process_time() - begun) >= 100


def test_reloading_is_exact(bundled, tmp_path):
    model, _ = bundled
    script.save(model, tmp_path)
    again = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values()):
        assert torch.equal(a, b), name
        assert a.dtype in (torch.float32, torch.int64), name


@pytest.mark.parametrize("text", ["", "A Bird with a RED crown", "naïve ☂ zebra — 鳥", "a bird " * 100])
def test_tokenizer_encodes_any_text(bundled, text):
    tokens = bundled[1]([text])
    context = script.MODEL_CONFIG["text_cfg"]["context_length"]
    assert tokens.shape == (1, context)
    ids = tokens[0].tolist()
    assert ids[0] == 1
    assert ids.count(2) == 1, "the end mark is where the text tower reads"
    assert all(i == 0 for i in ids[ids.index(2) + 1 :])
    if len(text) < 50:
        assert bundled[1].tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower()


def test_no_caption_or_phrase_is_cut(bundled, looks):
    rng = np.random.default_rng(1)
    captions = [script.draw_caption(birds.look_to_attributes(look), rng)[0] for look in looks]
    tokens = bundled[1]([*captions, *birds.concept_phrases()])
    assert (tokens[:, -1] == 0).all()


# --- what it was trained on ------------------------------------------------------------------------------------------


def test_no_bird_of_a_species_is_in_the_pretraining_combinations(looks):
    def bird(look: dict) -> tuple:
        return tuple(option for group, option in look.items() if group != "habitat")

    trained = {bird({group: look[group] for group in birds.GROUPS}) for look in looks}
    source = birds.BirdImages("test", n_images=1000, habitat="untied")
    individuals = [birds.attributes_to_look(row) for row in source.attributes]
    assert not trained & {bird(look) for look in individuals}
    # Whatever is drawn: everything that a species can look like lies within the held-out distance.
    assert all(script.is_held_out(look) for look in individuals)


def test_held_out_is_a_distance_from_the_signatures():
    groups = [group for group in birds.GROUPS if group != "habitat"]
    signature = birds.SPECIES["Calder shrike"]
    for changed in range(5):
        look = dict(signature)
        for group in groups[:changed]:
            choices = [*birds._GROUPS[group], *([None] if group in birds._OPTIONAL_GROUPS else [])]
            look[group] = next(option for option in choices if option != signature[group])
        distances = [sum(look[g] != s[g] for g in groups) for s in birds.SPECIES.values()]
        assert script.is_held_out(look) == (min(distances) < 3)
    assert script.is_held_out(signature | {"habitat": "snow"})


def test_captions_are_true_and_name_no_species(looks):
    rng = np.random.default_rng(2)
    words_of_species = {word.lower() for name in birds.SPECIES for word in name.split()}
    texts = set()
    for look in looks:
        attributes = birds.look_to_attributes(look)
        caption, said = script.draw_caption(attributes, rng)
        texts.add(caption)
        assert not words_of_species & set(re.findall(r"\w+", caption.lower())), caption
        assert 1 <= said.sum() <= 4
        assert not (said & ~attributes).any(), "the caption says something untrue"
        for name in np.array(birds.ATTRIBUTE_NAMES)[said]:
            assert name.removesuffix(" size").split()[-1] in caption, (name, caption)
    assert len(texts) > 1500, "captions hardly vary"
    assert not words_of_species & {word for phrase in birds.concept_phrases() for word in phrase.split()}


def test_every_concept_phrase_is_a_caption_of_its_attribute():
    for k, phrase in enumerate(birds.concept_phrases()):
        drawn = {script.compose_caption([birds.ATTRIBUTE_NAMES[k]], np.random.default_rng(s)) for s in range(60)}
        assert phrase in drawn


def test_positive_pairs_are_the_true_ones():
    rng = np.random.default_rng(3)
    attributes, said = rng.random((30, 8)) < 0.5, rng.random((20, 8)) < 0.3
    expected = [[all(row[k] for k in np.flatnonzero(words)) for words in said] for row in attributes]
    np.testing.assert_array_equal(script.consistent(attributes, said), expected)


def test_loss_is_the_pairwise_sigmoid_loss():
    rng = np.random.default_rng(4)
    logits, positive = rng.normal(size=(5, 7)) * 4, rng.random((5, 7)) < 0.4
    expected = np.mean(np.log1p(np.exp(-np.where(positive, 1, -1) * logits)))
    loss = script.pairwise_sigmoid_loss(torch.from_numpy(logits), torch.from_numpy(positive))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_uniformity_loss_skips_captions_that_say_the_same():
    features = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    said = np.eye(6, dtype=bool)
    said[5] = said[4]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and {i, j} != {4, 5}]
    expected = np.log(np.mean([np.exp(-2 * float((features[i] - features[j]).square().sum())) for i, j in pairs]))
    assert script.uniformity_loss(features, said).item() == pytest.approx(expected, rel=1e-5)


# --- how it was trained ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    return script.painted(tmp_path_factory.mktemp("painted"), seed=7, count=64, workers=1)


def test_painted_pictures_are_those_of_their_own_stream(small_set):
    pictures, attributes = small_set
    for k in (0, 63):
        rng = birds.picture_rng(7, "pretrain", k)
        truth = birds.look_to_attributes(script.pretraining_look(rng))
        np.testing.assert_array_equal(attributes[k], truth)
        np.testing.assert_array_equal(pictures[k], np.asarray(birds.paint(truth, rng)))


def test_pretraining_is_deterministic_and_learns(bundled, small_set):
    def run(seed: int) -> tuple[list[float], dict[str, torch.Tensor]]:
        model = script.new_model(seed)
        losses = script.train(model, bundled[1], *small_set, steps=8, batch_size=32, captions=16, seed=seed)
        return losses, model.state_dict()

    torch.manual_seed(0)
    (first, weights), state = run(0), torch.get_rng_state()
    torch.manual_seed(1)
    second, again = run(0)
    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert run(1)[0] != first
    assert np.mean(first[-3:]) < np.mean(first[:3])
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"


def test_script_from_end_to_end(tmp_path, capsys):
    out, work = tmp_path / "out", tmp_path / "work"
    arguments = ["--pictures", "64", "--steps", "2", "--batch-size", "16", "--captions", "8", "--probe", "80", "80"]
    threads = torch.get_num_threads()
    try:
        measured = script.main([*arguments, "--out", str(out), "--work-dir", str(work)])
    finally:
        torch.set_num_threads(threads)
    assert {path.name for path in out.iterdir()} == set(script.FILES)
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{measured['zero_shot_attribute_auc_mean']:.4f}" in card
    assert "--pictures 64 --steps 2" in card
    assert '"linear_probe_accuracy"' in capsys.readouterr().out
    # The tokenizer does not depend on how long the training is: it is the one that ships.
    assert (out / "tokenizer.json").read_bytes() == (BUNDLED / "tokenizer.json").read_bytes()
    model = open_clip.create_model(f"local-dir:{out}")
    assert model.visual.output_dim == script.MODEL_CONFIG["embed_dim"]
