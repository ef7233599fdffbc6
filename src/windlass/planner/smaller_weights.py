"""A dense model as it would be with its weights packed, for plans that ask what that is worth: exact to a block.

`windlass plan --quantization` plans from the checkpoint that `windlass quantize` would write; this asks the same of a
model that is only known by its facts, for advice and for --allow.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from windlass.facts.model_facts import ModelFacts
from windlass.facts.own_checkpoint import BLOCK_BYTES, COLUMNS, ROWS, own_packing
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.parameter_source import ParameterSource
from windlass.facts.tensor_fact import TensorFact
from windlass.facts.weight_formats import SMALLER_FORMATS
from windlass.facts.weight_group import WeightGroup

# A token sent to another expert is no small error, so what chooses between them stays.
_ROUTER = re.compile(r"(^|[._])(router|shared_expert_gate|gate)(\.|$)")


def smaller_weights(model: ModelFacts, name: str) -> ModelFacts:
    """The model with the matrices of its layers in blocks of "int4" or "int8"; itself where it is packed already."""
    if model.is_packed:
        return model
    groups = [_packed_group(group, SMALLER_FORMATS[name]) for group in model.groups]
    moved = _laid_out(fact for group in groups for source in group.sources for fact in source.tensors)
    return replace(model, groups=tuple(_moved(group, moved) for group in groups))


def _packed_group(group: WeightGroup, bits: int) -> WeightGroup:
    if group.kind not in ("layer", "expert"):
        return group
    return replace(group, sources=tuple(_packed(source, bits) if _fits(source) else source for source in group.sources))


def _fits(source: ParameterSource) -> bool:
    """As `windlass quantize` chooses: a matrix of some size that is no router."""
    if source.expert is None and _ROUTER.search(source.parameter) or source.parameter.endswith("bias"):
        return False
    return all(len(shape) == 2 and shape[0] >= ROWS and shape[1] >= COLUMNS // 2 for shape in source.shapes)


def _packed(source: ParameterSource, bits: int) -> ParameterSource:
    tensors = tuple(_in_blocks(fact, bits) for fact in source.tensors)
    facts = tuple(fact for tensor in tensors for fact in tensor.facts)
    nbytes = sum(fact.nbytes for fact in facts)
    return replace(source, tensors=facts, nbytes=nbytes, direct=True, packed=tensors)


def _in_blocks(fact: TensorFact, bits: int) -> PackedTensor:
    rows, columns = fact.shape
    shape = (-(-rows // ROWS), -(-columns // COLUMNS), BLOCK_BYTES[bits])
    blocks = replace(fact, dtype="U8", shape=shape, nbytes=shape[0] * shape[1] * shape[2])
    return PackedTensor(fact.name, (rows, columns), own_packing(bits), (("blocks", blocks),))


def _laid_out(facts: Iterable[TensorFact]) -> dict[str, TensorFact]:
    """Every tensor where it lies once each of its file follows the one before, by name."""
    ordered = sorted({fact.name: fact for fact in facts}.values(), key=lambda fact: (fact.file, fact.offset))
    found, file, end = dict[str, TensorFact](), "", 0
    for fact in ordered:
        # The header of a file stays as long as it was.
        end = fact.offset if fact.file != file else end
        found[fact.name] = replace(fact, offset=end)
        file, end = fact.file, end + fact.nbytes
    return found


def _moved(group: WeightGroup, facts: dict[str, TensorFact]) -> WeightGroup:
    def moved(source: ParameterSource) -> ParameterSource:
        packed = tuple(
            replace(tensor, parts=tuple((role, facts[fact.name]) for role, fact in tensor.parts))
            for tensor in source.packed
        )
        return replace(source, tensors=tuple(facts[fact.name] for fact in source.tensors), packed=packed)

    return replace(group, sources=tuple(map(moved, group.sources)))
