"""The first part of the demonstration: real text from the model in the box, on a device too small for it.

The device is simulated, so that this shows the same on any machine: a set amount of memory behind a link of a set rate.
The two speeches shown are sampled, the others greedy. All tokens are compared with a run that has all the memory it
wants, and some of the greedy ones with transformers.
"""

from windlass.engine.llm import LLM
from windlass.facts.demo_result import TokenComparison, VerseResult
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.reference import greedy_tokens
from windlass.packaged_model import packaged_model_folder
from windlass.units import MIB, format_bytes, format_rate, format_size

LINK_RATE = 2e9
DEVICE = "sim:rate=2GB/s,latency=20us,poison=off"
BUDGET = 68 * MIB
MICRO_BATCH_TOKENS = 128
TOKENS = 120
SHOWN, TEMPERATURE, SEED = 2, 0.5, 5
# How many answers transformers is asked for as well: it takes one after the other.
COMPARED = 4

SPEAKERS = (
    "ROMEO",
    "JULIET",
    "HAMLET",
    "MACBETH",
    "KING LEAR",
    "OTHELLO",
    "BRUTUS",
    "PORTIA",
    "PROSPERO",
    "CORIOLANUS",
)
OPENINGS = ("What", "My lord,", "The", "O, how", "I", "Come,", "Good", "And so")


def verse(tokens: int = TOKENS, budget: int = BUDGET) -> VerseResult:
    """Every speaker with every opening, at once: on the device, then resident. Raises WindlassError."""
    folder = packaged_model_folder()
    prompts = [f"{speaker}:\n{opening}" for opening in OPENINGS for speaker in SPEAKERS]
    greedy = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    sampled = SamplingParams(max_tokens=tokens, temperature=TEMPERATURE, seed=SEED, ignore_eos=True)
    params = [sampled] * SHOWN + [greedy] * (len(prompts) - SHOWN)
    with open_on_the_device(budget) as llm:
        encoded = [llm.tokenizer.encode(prompt) for prompt in prompts]
        plan = llm.prepare(Workload(len(prompts), max(map(len, encoded)), tokens))
        outputs = llm.generate(prompts, params)
        report, facts = llm.report, llm.opened.facts
    with LLM(folder, dtype="float32", device="cpu") as llm:
        resident = [tuple(output.outputs[0].token_ids) for output in llm.generate(prompts, params)]
    ours = [tuple(output.outputs[0].token_ids) for output in outputs]
    compared = slice(SHOWN, SHOWN + COMPARED)
    theirs = greedy_tokens(folder, [output.prompt_token_ids for output in outputs[compared]], tokens)
    uploading = report.prefill_lanes["upload"] + report.decode_lanes["upload"]
    return VerseResult(
        budget=budget,
        weight_bytes=facts.weight_bytes,
        cache_bytes=plan.num_pages * plan.page_tokens * facts.cache_bytes_per_token,
        streamed_bytes=plan.streamed_bytes,
        link_limit=LINK_RATE,
        link_rate=report.link_bytes / uploading if uploading else 0.0,
        seconds_per_pass=report.seconds_per_pass,
        texts=tuple(p + output.outputs[0].text for p, output in zip(prompts[:SHOWN], outputs, strict=False)),
        ours=tuple(ours),
        resident=tuple(resident),
        comparisons=tuple(
            TokenComparison(len(output.prompt_token_ids), a, b)
            for output, a, b in zip(outputs[compared], ours[compared], theirs, strict=True)
        ),
    )


def open_on_the_device(budget: int) -> LLM:
    """The model in the box on a simulated device of `budget` bytes."""
    return LLM(
        packaged_model_folder(),
        dtype="float32",
        device=DEVICE,
        gpu_memory=budget,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
    )


def verse_lines(result: VerseResult) -> list[str]:
    """For people: the verse, then what was measured beside its limit."""
    lines = [line for text in result.texts for line in (*_whole_lines(text), "")]
    same = sum(a == b for a, b in zip(result.ours, result.resident, strict=True))
    lines += [
        f"{format_size(result.weight_bytes)} of weights and {format_size(result.cache_bytes)} of keys and values on a "
        f"device of {format_size(result.budget)}, which must also compute there",
        f"a pass   {1000 * result.seconds_per_pass:.1f} ms for {format_bytes(result.streamed_bytes)} of weights over "
        f"the link, which take {1000 * result.streamed_bytes / result.link_limit:.1f} ms at its "
        f"{format_rate(result.link_limit)}; carried at {format_rate(result.link_rate)}",
        f"{same} of {len(result.ours)} answers of {len(result.ours[0])} tokens are those of a run that has all the "
        "memory it wants; beside transformers:",
    ]
    return lines + [f"  {each.line()}" for each in result.comparisons]


def _whole_lines(text: str) -> list[str]:
    """A speech without the line it was cut off in."""
    return [f"| {line}" for line in text.rpartition("\n")[0].rstrip().splitlines()]
