"""Decode attention on a CUDA device: pages are read where they lie instead of being gathered for torch."""

from collections.abc import Callable
from functools import partial

import torch

from windlass.facts.attention_rule import AttentionRule
from windlass.kernels.cuda.backend import DeviceKernels, device_kernels
from windlass.kernels.cuda.device_pages import stored_pages
from windlass.kernels.decode_plan import DecodePlan
from windlass.kernels.page_store import PageStore

Partial = tuple[torch.Tensor, torch.Tensor]

LARGEST_DIM = 256
"""Of keys and values: larger ones (latent attention) do not fit a program's registers."""
LARGEST_GROUP = 128
"""Query heads of a key head."""


def device_decode(
    query: torch.Tensor, store: PageStore, plan: DecodePlan, rule: AttentionRule, plain: Callable[[], Partial]
) -> Partial:
    """As `partial_decode`, by the kernel or, where that does not take such a layer or does not run here, by `plain`."""
    kernels = device_kernels()
    if not (isinstance(kernels, DeviceKernels) and takes(query, store)):
        return plain()
    kernel = partial(decode_by, kernels, query, store, plan, rule)
    with torch.cuda.device(query.device):
        return kernels.guard.tried(f"decode attention in {query.dtype}", kernel, plain)


def takes(query: torch.Tensor, store: PageStore) -> bool:
    """Whether the kernel attends to such a layer."""
    heads, key_dim, value_dim = store.keys.shape[1], store.keys.shape[-1], store.values.shape[-1]
    alike = query.dtype == store.keys.dtype == store.values.dtype and store.values.shape[1] == heads
    return alike and max(key_dim, value_dim) <= LARGEST_DIM and query.shape[1] <= LARGEST_GROUP * heads


def decode_by(
    kernels: DeviceKernels, query: torch.Tensor, store: PageStore, plan: DecodePlan, rule: AttentionRule
) -> Partial:
    """query (S, H, Dk) -> out (S, H, Dv) and log-sum-exp (S, H), float32."""
    pages = stored_pages(store)
    return kernels.launchers.decode_pages(query.contiguous(), pages, plan.device_runs, rule.scaling, rule.softcap)
