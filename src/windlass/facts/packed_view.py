"""A dense checkpoint as it would be once it is packed, to the byte, before a byte of it is."""

from collections.abc import Iterable
from pathlib import Path

from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.own_checkpoint import COLUMNS, FORMAT, own_checkpoint
from windlass.facts.packed_files import output_files, padded_shapes, tensor_facts


def packed_view(checkpoint: CheckpointFacts, packed: Iterable[str], bits: int) -> CheckpointFacts:
    """The checkpoint with the tensors of the names `packed` in blocks of `bits` bits, computed in the same dtype."""
    files = output_files(list(checkpoint.plain.values()), packed, bits)
    facts = tensor_facts(files, Path(checkpoint.folder) / "packed")
    settings = {"format": FORMAT, "bits": bits, "group_size": COLUMNS, "shapes": padded_shapes(files)}
    return own_checkpoint(CheckpointFacts(checkpoint.folder, facts, checkpoint.weights_dtype), settings)
