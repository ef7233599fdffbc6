"""Tiny random models of a given type, and what transformers itself computes with them: the outside reference.

V vocabulary; N tokens of one sequence; S decode steps.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.generation.utils import GenerateDecoderOnlyOutput

from windlass.model.shrunken_sizes import VOCABULARY
from windlass.model.trial_lengths import DECODE_STEPS

# Gains on 1/sqrt(fan-in): scores of a few units, so that attention is far from uniform; every layer changes the row.
MATRIX_GAIN, EMBEDDING_SCALE, VECTOR_NOISE, BUFFER_NOISE = 1.4, 0.15, 0.2, 0.1
PLAIN_TOKENS = range(8, VOCABULARY - 24)  # ids that no special token has in a shrunken vocabulary


@dataclass(frozen=True, slots=True)
class Reference:
    """What one sequence gives alone, in float32 with eager attention.

    `prompt_logits` (N, V) of one forward over the whole prompt; `tokens` the S greedy ones that follow, and
    `step_logits` (S, V) those they were picked from, step 0 being the prompt's last.
    """

    prompt: tuple[int, ...]
    prompt_logits: torch.Tensor
    tokens: tuple[int, ...]
    step_logits: torch.Tensor


def make_twin(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random float32 model of `config` with eager attention, in eval mode, that no token ends.

    Weights are drawn so that a mistake anywhere shows in the logits: norms, biases, sinks and router biases are
    neither 0 nor 1. The same seed gives the same weights, and torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager"
        )
        _draw_weights(model, torch.Generator().manual_seed(seed))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


def _draw_weights(model: nn.Module, source: torch.Generator) -> None:
    """Matrices anew; vectors and persistent buffers around what the model's own initialisation put there.

    Around, because some norms keep their weight less one, and decay rates have a range of their own.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=source)
        if id(parameter) in embeddings:
            parameter.data = EMBEDDING_SCALE * noise
        elif parameter.dim() >= 2:
            parameter.data = (
                noise * MATRIX_GAIN / parameter[0].numel() ** 0.5 if parameter.dim() == 2 else _stacked(noise)
            )
        else:
            parameter.data = parameter.data + VECTOR_NOISE * noise
    kept = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if name in kept and buffer.is_floating_point():
            buffer += BUFFER_NOISE * torch.randn(buffer.shape, generator=source)


def _stacked(noise: torch.Tensor) -> torch.Tensor:
    """Experts' matrices (E, A, B) in either orientation, or kernels (C, 1, W): the smaller of the last two counts."""
    return noise * MATRIX_GAIN / max(1, min(noise.shape[-2:])) ** 0.5


def trial_prompts(lengths: Sequence[int], seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """One random prompt of each length, free of special tokens."""
    source = torch.Generator().manual_seed(seed)
    draws = (torch.randint(PLAIN_TOKENS.start, PLAIN_TOKENS.stop, (length,), generator=source) for length in lengths)
    return tuple(tuple(draw.tolist()) for draw in draws)


def reference_logits(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int = DECODE_STEPS
) -> tuple[Reference, ...]:
    """What transformers computes for each prompt alone: one forward, then its own greedy `generate`."""
    return tuple(_reference(model, tuple(prompt), steps) for prompt in prompts)


@torch.no_grad()
def _reference(model: PreTrainedModel, prompt: tuple[int, ...], steps: int) -> Reference:
    ids = torch.tensor([prompt])
    model(ids[:, :1], use_cache=False)  # rotary tables that grew with an earlier prompt (dynamic) shrink again
    whole = model(ids, use_cache=False).logits[0]
    # Every causal model of transformers generates, which the annotations of PreTrainedModel leave out.
    generate = cast(Callable[..., GenerateDecoderOnlyOutput], model.generate)
    made = generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert made.logits is not None
    tokens = tuple(made.sequences[0, len(prompt) :].tolist())
    return Reference(prompt, whole, tokens, torch.cat(list(made.logits)))
