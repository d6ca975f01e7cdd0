"""Text models that answer questions: causal and sequence-to-sequence language models of the transformers library.

They stand here because transformers is imported in this room alone; nothing else of the room uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sparsecbm._base.devices import resolve_device
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.encoders.loading import explained
from sparsecbm.encoders.transformers import folder_or_repository, pretrained


class TextGenerator:
    """A language model with its tokenizer.

    Parameters
    ----------
    name : str
        What it was loaded by.
    model : torch.nn.Module
        With ``generate``.
    tokenizer
        As saved beside the model.
    device : torch.device

    Attributes
    ----------
    chat : bool
        Whether prompts are put into the tokenizer's chat template, as instruction-tuned models expect.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        # A causal model goes on from the last token, so padding stands before the prompt.
        tokenizer.padding_side = "right" if self.encoder_decoder else "left"
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise StoredFileError(f"text model {name!r}: its tokenizer has neither a padding nor an end token")
            tokenizer.pad_token = tokenizer.eos_token

    def generate(
        self, prompts: Sequence[str], seed: int = 0, *, max_new_tokens: int = 160, temperature: float = 0.0
    ) -> list[str]:
        """Answer prompts.

        Parameters
        ----------
        prompts : sequence of str
        seed : int
            Of sampling. The global random state of torch is left as it was.
        max_new_tokens : int
            Longest answer.
        temperature : float
            0 takes the most probable token every time.

        Returns
        -------
        list of str
            Answers without the prompts.

        Raises
        ------
        InputError
            If a number is out of range, or a prompt and its answer are longer than the model allows.
        """
        if max_new_tokens < 1 or temperature < 0:
            raise InputError(
                f"max_new_tokens={max_new_tokens}, temperature={temperature}: expected at least 1 and at least 0"
            )
        inputs = self._inputs(prompts)
        length = inputs["input_ids"].shape[1]
        limit = self._positions()
        if limit is not None and length + (0 if self.encoder_decoder else max_new_tokens) > limit:
            raise InputError(
                f"text model {self.name!r} reads {limit} tokens: a prompt of {length} and an answer of "
                f"{max_new_tokens} do not fit; ask for fewer new tokens or take another model"
            )
        sampling = {"do_sample": False} if temperature == 0 else {"do_sample": True, "temperature": temperature}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)  # generate() takes no generator; the fork keeps this from anyone else
            made = self.model.generate(
                **inputs, max_new_tokens=max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
            )
        if not self.encoder_decoder:
            made = made[:, length:]
        return self.tokenizer.batch_decode(made, skip_special_tokens=True)

    def _inputs(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        texts = list(prompts)
        if self.chat:
            texts = [
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
                for text in texts
            ]
        made = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=not self.chat)
        kept = {name: made[name].to(self.device) for name in ("input_ids", "attention_mask") if name in made}
        largest, rows = int(kept["input_ids"].max()), self.model.get_input_embeddings().num_embeddings
        if largest >= rows:
            raise StoredFileError(
                f"text model {self.name!r}: its tokenizer gives token {largest} but it has {rows} tokens; they do not "
                "belong together"
            )
        return kept

    def _positions(self) -> int | None:
        config = self.model.config
        return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def load_text_generator(name: str, *, device: str | torch.device = "auto") -> TextGenerator:
    """Load a language model from a local folder or the Hugging Face hub.

    Parameters
    ----------
    name : str
        A folder made by ``save_pretrained``, or a repository such as ``Qwen/Qwen3-4B-Instruct-2507``; a leading
        ``transformers:`` is allowed.
    device : str or torch.device
        See `load_encoder`.

    Raises
    ------
    InputError
        If the model writes no text, or the device is unknown.
    StoredFileError
        If files are missing, damaged or foreign, or cannot be had from the hub.

    Notes
    -----
    Nothing is unpickled and no code of a model repository is run.
    """
    source = name.strip().removeprefix("transformers:")
    where = resolve_device(device)
    folder, local = folder_or_repository(source, f"text model {name!r}")
    with explained(name, local, "text model"):
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        )

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        kind = config.model_type
        if config.is_encoder_decoder and kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            auto: Any = AutoModelForSeq2SeqLM
        elif kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            auto = AutoModelForCausalLM
        else:
            raise InputError(f"text model {name!r} is a model of type {kind!r}, which writes no text: take another")
        dtype = torch.float32 if where.type == "cpu" else "auto"
        model = pretrained(auto, config, folder, name, local, dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return TextGenerator(name, model, tokenizer, where)
