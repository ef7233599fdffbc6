"""A dense checkpoint as it would be once it is packed, to the byte, before a byte of it is."""

from collections.abc import Iterable
from pathlib import Path

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.own_checkpoint import COLUMNS, FORMAT, own_checkpoint
from windlass.facts.packed_files import output_files, padded_shapes
from windlass.facts.tensor_fact import TensorFact


def packed_view(checkpoint: CheckpointFacts, packed: Iterable[str], bits: int) -> CheckpointFacts:
    """The checkpoint with the tensors of the names `packed` in blocks of `bits` bits, computed in the same dtype."""
    plain = [fact for fact in checkpoint.tensors.values() if isinstance(fact, TensorFact)]
    files = output_files(plain, packed, bits)
    facts = {
        tensor.source.name: TensorFact(
            name=tensor.source.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            file=str(Path(checkpoint.folder) / "packed" / file.name),
            offset=tensor.offset,
            nbytes=tensor.nbytes,
        )
        for file in files
        for tensor in file.tensors
    }
    settings = {"format": FORMAT, "bits": bits, "group_size": COLUMNS, "shapes": padded_shapes(files)}
    return own_checkpoint(CheckpointFacts(checkpoint.folder, facts, checkpoint.weights_dtype), settings)
