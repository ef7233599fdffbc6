"""The bridge to transformers: builds any architecture without weights and finds the parts that Windlass replaces.

Parameters are on the meta device, buffers (rotary frequencies, scales) are real. No copy of any architecture lives
here; what cannot be found in a model's structure makes it unsupported, and what is found is proven by the twin.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from windlass.errors import UnsupportedModel
from windlass.memory.process_memory import big_blocks_outside_heap
from windlass.model.attention import ATTENTION
from windlass.model.conductor import Seat
from windlass.model.experts import EXPERTS, ExpertsPort, connect_experts, experts_modules
from windlass.model.rotary import RotaryStandIn
from windlass.model.shared_states import SharedStates
from windlass.model.stand_ins import DecoderStandIn, EmbeddingStandIn, HeadStandIn, LayerStandIn


@dataclass(frozen=True, slots=True)
class Part:
    """A module of the model and its name in it."""

    name: str
    module: nn.Module


@dataclass(frozen=True, slots=True)
class LiftedModel:
    """A transformers model in two views: the driver, with stand-ins in place, and the real parts behind them.

    `experts` gives, by layer index, the name of the experts module under the layer and its number of experts.
    """

    model: PreTrainedModel
    decoder: DecoderStandIn
    embedding: Part
    layers: tuple[Part, ...]
    head: Part
    outer: tuple[Part, ...]
    experts: dict[int, tuple[str, int]]


def build(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The model of a config, parameters on meta in `dtype`, buffers real on `device`, attention and experts ours."""
    # A parameter is real for a moment before it is empty.
    with big_blocks_outside_heap(), init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=ATTENTION, trust_remote_code=False
        )
    if any(True for module in model.modules() if experts_modules([("", module)])):
        model.config._experts_implementation = EXPERTS
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.config._experts_implementation = EXPERTS
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)
    _keep_in_float32(model, dtype)
    return model.eval()


def outline(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a config with nothing real in it, buffers neither: for looking at names and shapes alone."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _keep_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    kept = kept_in_float32(model, dtype)
    for prefix, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and kept(f"{prefix}.{name}"):
                    table[name] = tensor.to(torch.float32)


def kept_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[str], bool]:
    """Whether transformers keeps a parameter or buffer in float32 in a model of `dtype`, by its own list for it."""
    names = [re.escape(name) for name in model._get_dtype_plan(dtype)]
    if not names:
        return lambda name: False
    kept = re.compile(rf"(^|\.)({'|'.join(names)})(\.|$)")
    return lambda name: kept.search(name) is not None


def lift(model: PreTrainedModel, seat: Seat) -> LiftedModel:
    """Puts stand-ins in place. Raises UnsupportedModel when the decoder's parts cannot be told apart."""
    names = {id(module): name for name, module in model.named_modules()}
    layers_name, layer_list = decoder_layers(model)
    decoder_name = layers_name.rpartition(".")[0]
    decoder = model.get_submodule(decoder_name)
    if decoder is model:
        raise _unsupported(model, "its layers are not inside a decoder module of their own")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding is None or head is None:
        raise _unsupported(model, "it names no token embedding or no language-model head")
    layers = tuple(Part(f"{layers_name}.{index}", layer) for index, layer in enumerate(layer_list))
    replaced = {id(embedding), id(head), *(id(part.module) for part in layers)}
    outer = tuple(_outer_parts(model, replaced))
    lifted = LiftedModel(
        model,
        DecoderStandIn(decoder),
        Part(names[id(embedding)], embedding),
        layers,
        Part(names[id(head)], head),
        outer,
        _experts(layers),
    )
    _replace_children(decoder, lambda m: isinstance(m, nn.Module) and _is_rotary(m), RotaryStandIn)
    shared = SharedStates()
    for index, part in enumerate(layers):
        if index in lifted.experts:
            connect_experts(part.module.get_submodule(lifted.experts[index][0]), ExpertsPort(seat, index))
        layer_list[index] = LayerStandIn(part.module, seat, index, shared)
    _set_module(model, lifted.embedding.name, EmbeddingStandIn(embedding, seat))
    _set_module(model, lifted.head.name, HeadStandIn(head, seat))
    _set_module(model, decoder_name, lifted.decoder)
    return lifted


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers and its name. Raises UnsupportedModel where it cannot be told from others."""
    count = model.config.num_hidden_layers
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and any(True for _ in module[0].parameters())
    ]
    outermost = [item for item in found if not any(item[0].startswith(other + ".") for other, _ in found)]
    if len(outermost) != 1:
        raise _unsupported(model, f"{len(outermost)} lists of {count} decoder layers were found where one is expected")
    return outermost[0]


def _outer_parts(model: PreTrainedModel, replaced: set[int]) -> list[Part]:
    """Modules that hold parameters of their own outside layers, embedding and head: norms, position tables."""
    parts: list[Part] = []

    def walk(module: nn.Module, name: str) -> None:
        if id(module) in replaced:
            return
        if any(parameter is not None for parameter in module._parameters.values()):
            parts.append(Part(name, module))
        for child_name, child in module.named_children():
            walk(child, f"{name}.{child_name}" if name else child_name)

    walk(model, "")
    return parts


def _experts(layers: tuple[Part, ...]) -> dict[int, tuple[str, int]]:
    found = {}
    for index, part in enumerate(layers):
        modules = experts_modules(part.module.named_modules())
        if len(modules) == 1:
            found[index] = modules[0]
    return found


def _is_rotary(module: nn.Module) -> bool:
    return "rotary" in type(module).__name__.lower() and not any(True for _ in module.parameters())


def _replace_children(
    parent: nn.Module, chosen: Callable[[nn.Module], bool], stand_in: Callable[[nn.Module], nn.Module]
) -> None:
    """Direct children only: a rotary module inside a layer is the layer's own business."""
    for name, child in list(parent.named_children()):
        if chosen(child):
            setattr(parent, name, stand_in(child))


def _set_module(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    owner = root.get_submodule(parent) if parent else root
    owner._modules[attribute] = module


def _unsupported(model: PreTrainedModel, reason: str) -> UnsupportedModel:
    return UnsupportedModel(f"{model.config.model_type} ({type(model).__name__}) cannot be run: {reason}")
