"""What a model's files say, once it is known that an architecture like it gives the right tokens here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from windlass.engine.arguments import refuse_for_a_shape
from windlass.engine.opened_model import ModelFiles, check_choices, made_files, read_files
from windlass.engine.packing.copies import files_run_as
from windlass.engine.verdicts import require_proven
from windlass.facts.progress import Progress
from windlass.facts.shape import Shape
from windlass.model.hub import model_folder
from windlass.model.shape_checkpoint import shape_config
from windlass.model.text_config import text_config_of


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model, and as what it is to be run; see LLM."""

    name: str | Path | Shape
    dtype: str
    quantization: str | None
    longest: int | None
    revision: str | None
    unproven: bool


def proven_files(
    choice: ModelChoice, offload_dir: Path | None, on_progress: Callable[[Progress], None] | None
) -> ModelFiles:
    """Of a checkpoint, or of a shape that needs none. Raises UsageError and ModelError."""
    if isinstance(choice.name, Shape):
        refuse_for_a_shape(str(choice.name), choice.revision)
        require_proven(text_config_of(shape_config(choice.name)), choice.unproven)
        files = made_files(choice.name, choice.dtype, offload_dir, choice.quantization)
        check_choices(files, choice.dtype, choice.longest)
        return files
    files = read_files(model_folder(choice.name, choice.revision, on_progress))
    check_choices(files, choice.dtype, choice.longest)
    require_proven(files.text_config, choice.unproven)
    return files_run_as(choice.quantization, files, on_progress)
