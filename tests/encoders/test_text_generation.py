"""Text models: the real loading and generating code on tiny random models saved to a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.encoders.text_generation import load_text_generator

SENTENCE = "question answer which things are seen around what is a the of and red blue bird cat dog - : ? ."
WORDS = SENTENCE.split()
PROMPTS = ["which things are seen around a dog ?", "what is a cat and a bird and a red dog ?", "cat"]


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<unk>", "user", "assistant"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(specials + WORDS)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save(kind: str, folder: Path) -> Path:
    import transformers as hf

    made = tokenizer()
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "causal":
            config = hf.GPT2Config(vocab_size=len(made), n_positions=96, n_embd=16, n_layer=1, n_head=2, **ids)
            model = hf.GPT2LMHeadModel(config)
        else:
            shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
            config = hf.T5Config(vocab_size=len(made), decoder_start_token_id=0, **shape, **ids)
            model = hf.T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in ("causal", "seq2seq")}


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_answers_are_new_text_and_repeatable(folders, kind: str) -> None:
    writer = load_text_generator(str(folders[kind]), device="cpu")
    assert writer.encoder_decoder == (kind == "seq2seq")
    greedy = writer.generate(PROMPTS, max_new_tokens=12)
    assert len(greedy) == 3
    assert not any(answer.startswith(prompt) for answer, prompt in zip(greedy[:2], PROMPTS))
    # Padding must not change an answer: alone or beside longer prompts.
    assert writer.generate(PROMPTS[2:], max_new_tokens=12) == greedy[2:]
    state = torch.get_rng_state()
    drawn = writer.generate(PROMPTS, 7, max_new_tokens=12, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws are touched
    again = load_text_generator(f"transformers:{folders[kind]}", device="cpu")
    assert again.generate(PROMPTS, 7, max_new_tokens=12, temperature=1.0) == drawn
    assert writer.generate(PROMPTS, 8, max_new_tokens=12, temperature=1.0) != drawn


def test_chat_models_get_their_template(folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["causal"], tmp_path / "chat")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}user : {{ m['content'] }} {% endfor %}assistant :"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    writer = load_text_generator(str(folder), device="cpu")
    assert writer.chat
    rows = writer._inputs(["a cat"])["input_ids"]
    assert writer.tokenizer.decode(rows[0]).split() == ["user", ":", "a", "cat", "assistant", ":"]


def test_one_clear_line_for_what_cannot_be(folders, tmp_path: Path) -> None:
    writer = load_text_generator(str(folders["causal"]), device="cpu")
    with pytest.raises(InputError, match=r"reads 96 tokens: a prompt of .* and an answer of 90 do not fit"):
        writer.generate(PROMPTS, max_new_tokens=90)
    with pytest.raises(InputError, match="max_new_tokens=0"):
        writer.generate(PROMPTS, max_new_tokens=0)
    with pytest.raises(StoredFileError, match="there is no such folder"):
        load_text_generator(str(tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(StoredFileError, match="cannot load text model"):
        load_text_generator(str(empty))
    large = shutil.copytree(folders["causal"], tmp_path / "large")
    settings = json.loads((large / "config.json").read_text()) | {"n_embd": 100_000}
    (large / "config.json").write_text(json.dumps(settings))
    with pytest.raises(StoredFileError, match=r"declares .* parameters, but its weights are"):
        load_text_generator(str(large))
    other = shutil.copytree(folders["causal"], tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InputError, match="a model of type 'vit', which writes no text"):
        load_text_generator(str(other))
    cut = shutil.copytree(folders["causal"], tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(StoredFileError):
        load_text_generator(str(cut))
