"""Measures what the columns of a model's matrices are multiplied with, so that packing keeps those that matter most.

Prompts run once through the dense model by the ordinary engine, layer by layer, so a model larger than memory can be
calibrated; on the way the products of inputs of neighbouring columns of every matrix are added up: their means tell
which errors weigh most and which can make up for each other. Of experts only squares are kept, and one that saw few
tokens leans on what all experts of its layer saw.

Legend: n tokens, K columns.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from windlass.engine.llm import LLM
from windlass.engine.packing.journal import IMPORTANCE
from windlass.engine.packing.lane import Importance
from windlass.engine.packing.pack import Calibration
from windlass.engine.packing.work import PackingWork
from windlass.errors import StorageError, UsageError
from windlass.facts.batch_body import BatchBody
from windlass.facts.batch_row import BatchRow
from windlass.facts.own_checkpoint import COLUMNS
from windlass.facts.packed_files import PackPiece
from windlass.facts.progress import Progress
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.tensor_name import numbers_in
from windlass.facts.workload import Workload
from windlass.jobs.own_text import LENGTH, SEQUENCES, own_text
from windlass.jobs.question_file import read_rows
from windlass.jobs.text_file import read_text
from windlass.model.chat_prompt import chat_ids
from windlass.model.experts import experts_modules, watch_experts
from windlass.model.tokenizer import AnyTokenizer
from windlass.model.zoo import Part

LONGEST = 512
"""Tokens of a prompt at most; a text is cut into pieces of so many."""
MOST_TOKENS = 128 * LONGEST
"""Beyond, more text hardly changes a mean."""
LEANING_TOKENS = 32
"""What all experts of a layer saw counts for each of them as so many tokens."""


@dataclass(slots=True)
class _Seen:
    """Sums over tokens by the matrix they went into, and how many tokens: products of inputs within groups of columns
    (Bk, 64, 64), or squares of inputs (K)."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, x: torch.Tensor) -> None:
        """x (..., K) went into the matrix `name`: an expert's by squares alone, there are so many of them."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        sums = (flat.square().sum(0) if "#" in name else _products(flat)).cpu()
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums
        self.tokens[name] += len(flat)


def _products(x: torch.Tensor) -> torch.Tensor:
    """x (n, K) -> (Bk, 64, 64), summed over tokens; zero where there is no column."""
    groups = F.pad(x, (0, -x.shape[1] % COLUMNS)).view(len(x), -1, COLUMNS).transpose(0, 1)
    return groups.mT @ groups


def calibration_by(
    file: Path, model: Path, on_progress: Callable[[Progress], None], say: Callable[[str], None]
) -> Calibration:  # fmt: skip
    """The calibration of `model` (a folder) by the prompts of `file`. Raises UsageError, StorageError."""
    digest = hashlib.sha256(_bytes(file)).hexdigest()[:16]
    if file.suffix != ".jsonl":
        read_text(str(file))  # what is no text is refused before a model is loaded
    return Calibration(digest, partial(_weighed, partial(_of_file, file), str(file), model, on_progress, say))


def calibration_by_itself(
    model: Path, on_progress: Callable[[Progress], None], say: Callable[[str], None]
) -> Calibration:  # fmt: skip
    """The calibration of `model` (a folder) by a text that it writes for that."""
    return Calibration(
        f"own text, {SEQUENCES} times {LENGTH}",
        partial(_weighed, own_text, "what the model writes by itself", model, on_progress, say),
    )


def _of_file(file: Path, llm: LLM) -> list[list[int]]:
    return calibration_prompts(file, llm.tokenizer, min(LONGEST, llm.opened.facts.max_model_len - 1))


def _weighed(
    prompts_of: Callable[[LLM], list[list[int]]],
    name: str,
    model: Path,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
    work: PackingWork,
) -> Importance:
    """What was measured before is kept beside the journal, so that a killed job need not measure again."""
    kept = work.partial / IMPORTANCE
    if not kept.is_file():
        with LLM(model, on_progress=on_progress) as llm:
            prompts = prompts_of(llm)
            say(f"calibrating with {sum(map(len, prompts)):,} tokens of {name}")
            found = measured(llm, prompts)
        half = kept.with_suffix(".new")
        save_file(found, half)
        half.replace(kept)
    return _by_piece(load_file(kept), work.packed)


def calibration_prompts(file: Path, tokenizer: AnyTokenizer, length: int) -> list[list[int]]:
    """Tokens of the prompts of a .jsonl file, as `batch` reads them, or of pieces of a text.

    Raises UsageError for a file that holds none.
    """
    if file.suffix == ".jsonl":
        rows = [row for row in read_rows(str(file)) if isinstance(row, BatchRow)]
        found = [ids[:length] for row in rows if (ids := _ids(row.body, tokenizer))]
    else:
        ids = tokenizer.encode(read_text(str(file)))
        found = [ids[at : at + length] for at in range(0, len(ids), length)]
    taken, total = [], 0
    for prompt in found:
        if total < MOST_TOKENS:
            taken.append(prompt)
            total += len(prompt)
    if not taken:
        raise UsageError(f"{file} holds no prompt to calibrate with; write text, or one JSON object a line in a .jsonl")
    return taken


def measured(llm: LLM, prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """What `quantiser.packed` wants to know of the inputs of every matrix of the layers, by parameter.

    Of experts, whose number stands behind `#`, the mean squares, float32 (K); of others the mean products within
    groups of columns, float32 (Bk, 64, 64).
    """
    seen = _Seen()
    work = Workload(len(prompts), max(map(len, prompts)), 1)
    llm.prepare(work)  # what is rehearsed to plan the run has inputs that mean nothing
    with _watched(llm.opened.lifted.layers, seen):
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        llm.generate(asked, SamplingParams(max_tokens=1, temperature=0.0))
    return _means(seen)


@contextmanager
def _watched(layers: tuple[Part, ...], seen: _Seen) -> Iterator[None]:
    handles = []
    try:
        for part in layers:
            for name, module in part.module.named_modules():
                path = f"{part.name}.{name}"
                if isinstance(module, nn.Linear):
                    handles.append(module.register_forward_pre_hook(partial(_tell, seen, f"{path}.weight")))
            for name, _ in experts_modules(part.module.named_modules()):
                watch_experts(part.module.get_submodule(name), partial(_tell_expert, seen, f"{part.name}.{name}"))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part in layers:
            for name, _ in experts_modules(part.module.named_modules()):
                watch_experts(part.module.get_submodule(name), None)


def _tell(seen: _Seen, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    seen.add(name, inputs[0])


def _tell_expert(seen: _Seen, path: str, name: str, expert: int, x: torch.Tensor) -> None:
    seen.add(f"{path}.{name}#{expert}", x)


def _means(seen: _Seen) -> dict[str, torch.Tensor]:
    together: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = defaultdict(int)
    for name, sums in seen.sums.items():
        layer = name.partition("#")[0]
        together[layer] = together[layer] + sums if layer in together else sums
        counts[layer] += seen.tokens[name]
    means = {name: sums / max(1, counts[name]) for name, sums in together.items()}
    for name, sums in seen.sums.items():
        layer, _, expert = name.partition("#")
        if expert:
            means[name] = (sums + LEANING_TOKENS * means[layer]) / (seen.tokens[name] + LEANING_TOKENS)
    return means


def _by_piece(means: Mapping[str, torch.Tensor], packed: Mapping[str, str]) -> Importance:
    """`packed` gives the parameter that a packed tensor makes; an expert that saw nothing takes its layer's mean."""

    def importance(piece: PackPiece) -> torch.Tensor | None:
        parameter = packed[piece.tensor]
        expert = piece.expert
        if expert is None:
            numbers = numbers_in(piece.tensor)
            expert = int(numbers[-1]) if len(numbers) > len(numbers_in(parameter)) else None
        found = means.get(f"{parameter}#{expert}")
        return means.get(parameter) if found is None else found

    return importance


def _ids(body: BatchBody, tokenizer: AnyTokenizer) -> list[int]:
    if body.messages is not None:
        return chat_ids(tokenizer, body.messages)
    return list(body.prompt_token_ids or ()) if body.prompt is None else tokenizer.encode(body.prompt)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {file} to calibrate with; name a text or a .jsonl of prompts") from error
    except IsADirectoryError as error:
        raise UsageError(f"{file} is a folder; name a text or a .jsonl of prompts to calibrate with") from error
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror}; name a file that you may read") from error
