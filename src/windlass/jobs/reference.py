"""What transformers answers, run resident and one prompt at a time: the definition of the right tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def greedy_tokens(folder: Path, prompts: Sequence[Sequence[int]], gen_len: int) -> list[tuple[int, ...]]:
    """The `gen_len` likeliest tokens after each prompt of token ids, end tokens not heeded, in float32."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    answers = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])  # (1, tokens)
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=gen_len, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        answers.append(tuple(made[0, len(prompt) :].tolist()))
    return answers
