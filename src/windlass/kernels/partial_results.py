"""Attention over pieces of the keys comes together exactly: each piece gives its result and its log-sum-exp.

A piece in which a query sees nothing has result 0 and log-sum-exp -inf. (Milakov and Gimelshein, Online normalizer
calculation for softmax, 2018.)
"""

import torch


def combine(
    first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two results (..., Dv), each with its log-sum-exp (...), over different keys -> the same pair over both."""
    log_sum = torch.logaddexp(first[1], second[1])
    safe = log_sum.masked_fill(log_sum == -torch.inf, 0)
    out = first[0] * (first[1] - safe).exp()[..., None] + second[0] * (second[1] - safe).exp()[..., None]
    return out, log_sum
