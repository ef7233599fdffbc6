"""Which passes a job is made of, as engine.generation makes them: blocks, prompts in passes, then a token a pass."""

from dataclasses import dataclass
from functools import cache

from windlass.facts.plan import Plan
from windlass.facts.workload import Workload

# Decode passes grow longer with the context; so many of them are priced, those between lie on a line.
SAMPLES = 4


@dataclass(frozen=True, slots=True)
class PassShape:
    """One pass: `tokens` rows of `sequences` sequences of the block, `head_rows` of which want logits.

    In decode each row attends to `context` tokens, itself among them. In prefill the rows belong to prompts of `prompt`
    tokens. Each sequence holds `pages` pages, in order, of those that the plan has.
    """

    decoding: bool
    tokens: int
    head_rows: int
    sequences: int
    pages: int
    context: float
    prompt: float


@dataclass(frozen=True, slots=True)
class BlockPasses:
    """The passes of `count` equal blocks: those that read prompts in order, and samples of those that decode.

    `decode` pairs a pass with how many passes it stands for, a fraction where it shares one with its neighbour.
    """

    count: int
    prefill: tuple[tuple[PassShape, int], ...]
    decode: tuple[tuple[PassShape, float], ...]


def blocks_of(plan: Plan, workload: Workload) -> tuple[BlockPasses, ...]:
    """The full blocks, and what is left over for a smaller one. A block has no more sequences than there are pages."""
    size = max(1, min(plan.block_size, workload.num_prompts, plan.num_pages // pages_each(plan, workload)))
    whole, rest = divmod(workload.num_prompts, size)
    blocks = [_block(plan, workload, size, whole)]
    if rest:
        blocks.append(_block(plan, workload, rest, 1))
    return tuple(blocks)


def pages_each(plan: Plan, workload: Workload) -> int:
    """Pages that a sequence reserves when it enters."""
    return -(-workload.tokens_per_sequence // plan.page_tokens)


def _block(plan: Plan, workload: Workload, size: int, count: int) -> BlockPasses:
    prompt, pages = workload.mean_prompt_len, pages_each(plan, workload)
    tokens = round(size * prompt)
    most = max(1, min(plan.pass_tokens, tokens))
    full, last = divmod(tokens, most)
    sizes = [(most, full)] if full else []
    if last:
        sizes.append((last, 1))
    passes, done, ended = [], 0, 0
    for tokens_now, repeats in sizes:
        done += tokens_now * repeats
        ends = int(done / prompt + 1e-9) if done < tokens else size
        head_rows = tokens_now if workload.scored else round((ends - ended) / repeats)
        shape = PassShape(False, tokens_now, head_rows, size, pages, 0.0, prompt)
        passes.append((shape, repeats))
        ended = ends
    return BlockPasses(count, tuple(passes), _decode(workload, size, pages, prompt))


def _decode(workload: Workload, size: int, pages: int, prompt: float) -> tuple[tuple[PassShape, float], ...]:
    """The first token comes with the prompt. Sequences that end early leave, so later passes are smaller."""
    passes = workload.gen_len - 1
    if passes < 1:
        return ()
    nodes = sorted({round(i * (passes - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})
    weights = _trapezoid(tuple(nodes), passes)
    found = []
    for step, weight in zip(nodes, weights, strict=True):
        running = max(1, round(size * workload.still_running(step + 1)))
        found.append((PassShape(True, running, running, running, pages, prompt + step + 1, prompt), weight))
    return tuple(found)


@cache
def _trapezoid(nodes: tuple[int, ...], passes: int) -> tuple[float, ...]:
    """For how many of the passes 0 .. passes - 1 each node stands, if what lies between two is on a line."""
    weights = dict.fromkeys(nodes, 0.0)
    for low, high in zip(nodes, nodes[1:], strict=False):
        inner = high - low - 1
        weights[low] += inner / 2
        weights[high] += inner / 2
    total = tuple(weight + 1.0 for weight in weights.values())
    assert abs(sum(total) - passes) < 1e-6 * passes + 1e-9
    return total
