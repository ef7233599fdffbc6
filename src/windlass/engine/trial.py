"""Tries an architecture: a tiny random twin runs here and in transformers alone, and the logits are compared.

Packed prompts of many lengths, the same prompts in pieces, and greedy steps after them: whatever a model type does
that a packed row, a paged cache or borrowed weights would break shows as a difference, before any real weight is read.
"""

import itertools
import tempfile
from collections.abc import Sequence as Rows
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from windlass.engine.engine import Engine
from windlass.engine.generation import Generation
from windlass.engine.measurements import Measurements
from windlass.engine.opened_model import open_model, read_files
from windlass.engine.sequence import Sequence
from windlass.engine.stopping import StopCheck
from windlass.facts.completion import RequestOutput
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.kernels.page_store import PAGE_TOKENS
from windlass.model.detokenizer import Detokenizer
from windlass.model.trial_lengths import DECODE_STEPS, trial_lengths
from windlass.model.twin import Reference, make_twin, reference_logits, trial_prompts
from windlass.planner.search import Demands, search
from windlass.units import GIB, MIB

# Largest difference of any log probability. Rounding in float32 stays near 1e-5; state that leaks is far above.
TOLERANCE = 1e-3
DISK = DiskProfile(0.0, MIB, 4, True, "a trial")
# Rows of a pass and of a micro-batch: everything at once, and small pieces that cut prompts in two.
SHAPES = ((4096, 4096), (61, 23))


def largest_difference(config: PreTrainedConfig) -> tuple[float, str]:
    """Runs the twin of a shrunken `config` both ways -> the largest difference of a log probability, and where.

    Raises whatever the architecture does when it is run in a way it does not know.
    """
    twin = make_twin(config)
    prompts = trial_prompts(trial_lengths(config))
    references = reference_logits(twin, prompts)
    worst = (0.0, "")
    with tempfile.TemporaryDirectory(prefix="windlass-trial-") as folder:
        _save_quietly(twin, Path(folder))
        for pass_tokens, micro_batch_tokens in SHAPES:
            outputs = _run(Path(folder), prompts, pass_tokens, micro_batch_tokens)
            for reference, output in zip(references, outputs, strict=True):
                worst = max(worst, _compare(reference, output, pass_tokens))
    return worst


def _save_quietly(twin: PreTrainedModel, folder: Path) -> None:
    logging.disable_progress_bar()
    try:
        twin.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()


def _run(folder: Path, prompts: Rows[Rows[int]], pass_tokens: int, micro_batch_tokens: int) -> list[RequestOutput]:
    opened = open_model(read_files(folder), config_name(folder), "float32", None)
    workload = Workload(len(prompts), max(map(len, prompts)), DECODE_STEPS)
    demands = Demands(GIB, 0, 0, micro_batch_tokens, 1.0, PAGE_TOKENS, "cpu", block_size=len(prompts))
    plan = replace(search(opened.facts, workload, demands), pass_tokens=max(pass_tokens, len(prompts)))
    params = SamplingParams(max_tokens=DECODE_STEPS, temperature=0.0, ignore_eos=True, logprobs=opened.facts.vocab_size)
    numbers = itertools.count()
    sequences = []
    for prompt in prompts:
        number = next(numbers)
        stop = StopCheck(params, (), DECODE_STEPS, Detokenizer(opened.tokenizer))
        sequences.append(Sequence(number, Request(str(number), None, tuple(prompt), params), 0, 0, stop, DECODE_STEPS))
    engine = Engine(opened, plan, DISK, lambda done, total, seconds: None)
    try:
        outputs = {output.request_id: output for output in _answers(engine, sequences)}
    finally:
        engine.close()
    return [outputs[str(number)] for number in range(len(prompts))]


def config_name(folder: Path) -> str:
    """What errors call the model of a trial."""
    return f"the twin in {folder.name}"


def _answers(engine: Engine, sequences: list[Sequence]) -> list[RequestOutput]:
    return list(Generation(engine, Measurements(engine, None), stream=False).run([sequence] for sequence in sequences))


def _compare(reference: Reference, output: RequestOutput, pass_tokens: int) -> tuple[float, str]:
    """The largest difference over all steps; a different token counts as what its log probability lacks."""
    answer = output.outputs[0]
    assert answer.logprobs is not None
    wanted = reference.step_logits.log_softmax(-1)
    worst = (0.0, "")
    for step, entries in enumerate(answer.logprobs):
        ours = torch.tensor([entries[token].logprob for token in range(wanted.shape[1])])
        where = f"a prompt of {len(reference.prompt)} tokens, step {step}, passes of at most {pass_tokens} tokens"
        worst = max(worst, (float((ours - wanted[step]).abs().max()), where))
        if answer.token_ids[step] != reference.tokens[step]:
            break  # from here on the two read different tokens
    return worst
