"""The raw tensors that a quantised checkpoint holds in place of a layer's weight, checked against each other.

Formats tell them apart by the ends of their names ("model.layers.0.mlp.up_proj" + ".qweight", ".scales", ...). Layers
that a format left alone have a plain weight and are not touched, so that no list of them in a config is needed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from windlass.errors import CheckpointError
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.packed_tensor import PackedTensor
from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact

SCALE_DTYPES = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class RawLayer:
    """What a checkpoint of `format` holds of one layer: `facts` by the end of the name."""

    format: str
    stem: str
    facts: Mapping[str, TensorFact]

    def part(self, ending: str, dtypes: tuple[str, ...], sizes: int | None = None) -> TensorFact:
        """The tensor of that ending. Raises CheckpointError where it lacks, is of another dtype or has other than
        `sizes` dimensions."""
        if ending not in self.facts:
            near = next(iter(self.facts.values()))
            raise CheckpointError(
                f"{near.file}: layer {self.stem} has {', '.join(self.facts)} and lacks {ending}, which {self.format} "
                "needs; download the checkpoint again, or choose another"
            )
        fact = self.facts[ending]
        if fact.dtype not in dtypes:
            raise CheckpointError(
                f"{fact.file}: tensor {fact.name} is stored as {fact.dtype}, {self.format} has {' or '.join(dtypes)} "
                "there; check quantization_config in config.json, or choose another checkpoint"
            )
        if sizes is not None and len(fact.shape) != sizes:
            raise self.disagrees(fact, f"a shape of {sizes} sizes")
        return fact

    def shaped(self, ending: str, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> TensorFact:
        """As `part`, and of one of these shapes."""
        fact = self.part(ending, dtypes)
        if fact.shape not in shapes:
            raise self.disagrees(fact, " or ".join(str(list(shape)) for shape in shapes))
        return fact

    def disagrees(self, fact: TensorFact, expected: str) -> CheckpointError:
        """The refusal of a tensor whose shape is not the one that the rest asks for."""
        return CheckpointError(
            f"{fact.file}: tensor {fact.name} has shape {list(fact.shape)}, {self.format} with the settings in "
            f"config.json and the tensors beside it asks for {expected}; check quantization_config, or download the "
            "checkpoint again"
        )

    def packed(self, shape: tuple[int, ...], packing: Packing, **parts: TensorFact) -> PackedTensor:
        """The weight that the parts hold together."""
        return PackedTensor(f"{self.stem}.weight", shape, packing, tuple(parts.items()))


def stems_with(checkpoint: CheckpointFacts, *endings: str) -> list[str]:
    """The layers that have a tensor of one of these endings, each once."""
    found = (name.removesuffix(end) for name in checkpoint.tensors for end in endings if name.endswith(end))
    return list(dict.fromkeys(found))


def with_packed(
    checkpoint: CheckpointFacts,
    format: str,
    stems: Iterable[str],
    endings: Iterable[str],
    pack: Callable[[RawLayer], PackedTensor],
) -> CheckpointFacts:
    """The checkpoint in which what `pack` gives stands in place of the raw tensors of each of the layers `stems`.

    `endings` are all that the names of their tensors may have.
    """
    raw = {name: fact for name, fact in checkpoint.tensors.items() if isinstance(fact, TensorFact)}
    ends = tuple(endings)
    layers = [RawLayer(format, stem, {end: raw[stem + end] for end in ends if stem + end in raw}) for stem in stems]
    packed = {tensor.name: tensor for tensor in map(pack, layers)}
    gone = {fact.name for layer in layers for fact in layer.facts.values()}
    left = {name: fact for name, fact in checkpoint.tensors.items() if name not in gone}
    return replace(checkpoint, tensors=left | packed)
