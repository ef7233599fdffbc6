"""Plans set by hand for tests: shares of weights and of keys and values over device, host and disk, in small pages."""

from dataclasses import replace

from windlass.engine.llm import LLM
from windlass.facts.placement import Placement
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.by_hand import placed

# Small pages, so that a few tokens lie in several; room for every test's prompts.
PAGE_TOKENS, PAGES = 8, 48


def placement(
    weights_on_device: float, weights_on_host: float, cache_on_host: float, cache_on_disk: float = 0.0
) -> Placement:
    """Any shares make one: the host gets no more of the weights than the device leaves, nor the disk of the cache."""
    on_disk = min(cache_on_disk, 1 - cache_on_host)
    on_device = max(0.0, 1 - cache_on_host - on_disk)
    return Placement(weights_on_device, min(weights_on_host, 1 - weights_on_device), on_device, cache_on_host)


def in_small_pages(llm: LLM, plan: Plan, wanted: Placement, pass_tokens: int) -> Plan:
    """`plan`, placed so."""
    small = replace(plan, page_tokens=PAGE_TOKENS, num_pages=PAGES, pass_tokens=pass_tokens)
    return placed(llm.opened.facts, small, wanted)


def any_plan(llm: LLM, prompts: list[list[int]], tokens: int) -> Plan:
    """The plan the model would get for the prompts."""
    return llm.plan_for(Workload(len(prompts), max(map(len, prompts)), tokens))
