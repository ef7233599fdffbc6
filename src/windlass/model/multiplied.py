"""How a model uses each of its parameters, as far as packing them is concerned."""

from collections.abc import Callable, Mapping

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import Concatenate, MergeModulelist

from windlass.facts.packing_rule import Use, is_packed
from windlass.facts.tensor_fact import TensorFact
from windlass.model.experts import experts_modules
from windlass.model.parameter_map import Renaming
from windlass.model.zoo import decoder_layers, outline


def uses_of(model: PreTrainedModel) -> dict[str, Use]:
    """The use of every parameter that is multiplied with activations row by row; the others have another."""
    uses: dict[str, Use] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            uses[f"{name}.weight"] = "linear"
    for name, _ in experts_modules(model.named_modules()):
        module = model.get_submodule(name)
        if not vars(module)["is_transposed"]:
            uses |= dict.fromkeys((f"{name}.{own}" for own, p in module.named_parameters() if p.ndim == 3), "expert")
    return uses


def packed_names(config: PreTrainedConfig, tensors: Mapping[str, TensorFact]) -> dict[str, str]:
    """The tensors of a checkpoint that are to be packed, each with the parameter it makes, alone or with others."""
    model = outline(config)
    renaming, uses = Renaming(model, dict(model.named_parameters())), uses_of(model)
    goes_to, (layers, _) = _destinations(renaming), decoder_layers(model)
    found = {}
    for name, fact in tensors.items():
        parameter = goes_to(name)
        if parameter is not None and is_packed(parameter, uses.get(parameter, "other"), fact.shape, layers):
            found[name] = parameter
    return found


def _destinations(renaming: Renaming) -> Callable[[str], str | None]:
    def destination(name: str) -> str | None:
        """The parameter; None where transformers would do more with the tensor than put rows together."""
        to = renaming.destination(name)
        if to.pattern is None:
            return to.parameter
        operations = renaming.converter(to.pattern).operations
        return to.parameter if all(type(each) in (MergeModulelist, Concatenate) for each in operations) else None

    return destination
