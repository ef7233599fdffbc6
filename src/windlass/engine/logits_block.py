"""A piece of the logits of a pass: there are too many of them for all to be in memory at once."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class LogitsBlock:
    """logits (r, v) of the wanted rows from `start` on, over the vocabulary's ids from `first_id` on."""

    start: int
    first_id: int
    logits: torch.Tensor
