"""Plans set by hand: shares of weights and of keys and values on a device, in host memory and on disk."""

from dataclasses import dataclass, replace

from windlass.engine.llm import LLM
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload
from windlass.planner.residency import keep_share, place

# Small pages, so that a few tokens lie in several; room for every test's prompts.
PAGE_TOKENS, PAGES = 8, 48


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares of weights on device and host, the rest on disk; of the cache on host and disk, the rest on the device."""

    weights_on_device: float
    weights_on_host: float
    cache_on_host: float
    cache_on_disk: float = 0.0

    def plan(self, facts: ModelFacts, plan: Plan, pass_tokens: int) -> Plan:
        """`plan`, placed so."""
        device = keep_share(facts, self.weights_on_device)
        both = keep_share(facts, min(1.0, self.weights_on_device + self.weights_on_host))
        return replace(
            place(facts, plan, device, both - device),
            page_tokens=PAGE_TOKENS,
            num_pages=PAGES,
            host_pages=int(PAGES * self.cache_on_host),
            disk_pages=int(PAGES * min(self.cache_on_disk, 1 - self.cache_on_host)),
            pass_tokens=pass_tokens,
        )


def any_plan(llm: LLM, prompts: list[list[int]], tokens: int) -> Plan:
    """The plan the model would get for the prompts."""
    return llm.prepare(Workload(len(prompts), max(map(len, prompts)), tokens))
