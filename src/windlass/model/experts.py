"""Mixture-of-experts layers, one expert at a time: an expert is fetched only if a token of the pass wants it.

Registered with transformers' `ExpertsInterface`. The weights of the experts module stay on meta; each wanted expert's
slice comes from the port. The arithmetic follows transformers' own eager loop over experts (integrations/moe.py).

S token rows; H hidden size; I intermediate size; k experts a token.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ExpertsInterface

from windlass.kernels.plain_linear import plain_linear
from windlass.model.conductor import Seat

EXPERTS = "windlass"
_PORT, _WATCH = "windlass_experts_port", "windlass_experts_watch"

ExpertsWatch = Callable[[str, int, torch.Tensor], None]
"""(name of the parameter in the module, expert, x (n, K))."""


@dataclass(frozen=True, slots=True)
class ExpertsPort:
    """Where an experts module of layer `layer` asks for its weights."""

    seat: Seat
    layer: int


def experts_modules(modules: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, int]]:
    """`(name, number of experts)` of every module that speaks transformers' experts interface."""
    found = []
    for name, module in modules:
        if "is_transposed" in module.__dict__ and "has_gate" in module.__dict__:
            found.append((name, int(next(p.shape[0] for p in module._parameters.values() if p is not None))))
    return found


def connect_experts(module: nn.Module, port: ExpertsPort) -> None:
    """Tells an experts module where its weights come from."""
    module.__dict__[_PORT] = port


def watch_experts(module: nn.Module, watch: ExpertsWatch | None) -> None:
    """Has `watch` told of all that this experts module's matrices are multiplied with; nobody for None."""
    module.__dict__[_WATCH] = watch


def run_experts(
    module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """hidden_states (S, H), top_k_index and top_k_weights (S, k) -> (S, H)."""
    port: ExpertsPort = module.__dict__[_PORT]
    flat = top_k_index.reshape(-1)
    order = torch.argsort(flat, stable=True)
    wanted, counts = torch.unique_consecutive(flat[order], return_counts=True)
    ids = wanted.tolist()
    port.seat.conductor.announce_experts(
        port.layer, tuple(expert for expert in ids if 0 <= expert < module.num_experts)
    )
    # float32 sums over a token's experts, as transformers' grouped and batched forms do; the order is by expert id
    total = hidden_states.new_zeros(hidden_states.shape, dtype=torch.float32)
    start = 0
    for expert, count in zip(ids, counts.tolist(), strict=True):
        rows, start = order[start : start + count], start + count
        if not 0 <= expert < module.num_experts:
            continue
        tokens = rows // top_k_index.shape[-1]
        weights = port.seat.conductor.expert(port.layer, expert)
        out = _one_expert(module, expert, weights, hidden_states[tokens])
        total.index_add_(0, tokens, (out * top_k_weights.reshape(-1)[rows, None]).float())
    return total.to(hidden_states.dtype)


def _one_expert(module: Any, expert: int, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """x (n, H) -> (n, H) through one expert."""
    first = "gate_up_proj" if module.has_gate else "up_proj"
    x = _linear(module, expert, weights, first, x)
    x = module._apply_gate(x) if module.has_gate else module.act_fn(x)
    x = _linear(module, expert, weights, "down_proj", x)
    # transformers before 5.20 knows no norm after an expert, and its modules do not say so
    return module.post_expert_norm(x) if module.__dict__.get("has_post_expert_norm") else x


def _linear(module: Any, expert: int, weights: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    watch: ExpertsWatch | None = module.__dict__.get(_WATCH)
    if watch is not None:
        watch(name, expert, x)
    weight = weights[name] if name in weights else getattr(module, name)[expert]
    bias = None
    if module.has_bias:
        bias = weights[f"{name}_bias"] if f"{name}_bias" in weights else getattr(module, f"{name}_bias")[expert]
    if module.is_transposed:
        return torch.addmm(bias, x, weight) if bias is not None else x @ weight
    return plain_linear(x, weight, bias)


ExpertsInterface.register(EXPERTS, run_experts)
