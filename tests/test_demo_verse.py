"""The demonstration's first part: verse from a model on a device too small for it, token for token the model's own."""

from windlass.facts.workload import Workload
from windlass.jobs.demo_verse import (
    BUDGET,
    COMPARED,
    OPENINGS,
    SPEAKERS,
    TOKENS,
    open_on_the_device,
    verse,
    verse_lines,
)


def test_the_device_is_too_small_for_weights_and_keys_and_values() -> None:
    with open_on_the_device(BUDGET) as llm:
        plan = llm.plan_for(Workload(len(SPEAKERS) * len(OPENINGS), 16, TOKENS))
        facts = llm.opened.facts
    cache = plan.num_pages * plan.page_tokens * facts.cache_bytes_per_token
    assert facts.weight_bytes + cache > BUDGET
    assert plan.streamed_bytes and plan.host_pages
    assert plan.block_size == len(SPEAKERS) * len(OPENINGS), "all of them at once"


def test_a_few_tokens_of_it_are_those_of_the_resident_run_and_of_transformers() -> None:
    result = verse(tokens=12)
    assert result.equal and result.streamed_bytes
    assert (len(result.ours), len(result.comparisons)) == (len(SPEAKERS) * len(OPENINGS), COMPARED)
    assert result.as_dict()["tokens"] == 12 * len(result.ours)
    lines = verse_lines(result)
    assert lines[0] == "| ROMEO:" and any("over the link, which take" in line for line in lines)
    assert f"{len(result.ours)} of {len(result.ours)} answers of 12 tokens are those of a run" in "\n".join(lines)
