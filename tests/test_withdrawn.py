"""A request that is given up leaves the block, and whoever watches is told before the model waits for the next."""

from collections.abc import Collection

from windlass import LLM, SamplingParams
from windlass.engine.block_state import BlockState
from windlass.errors import UsageError
from windlass.facts.request import Request
from windlass.facts.workload import Workload
from windlass.packaged_model import packaged_model_folder


class OneWhoLeaves:
    """Asks once, gives the request up after its first token, and keeps what it was last told when nothing is left."""

    def __init__(self) -> None:
        self.closed, self.told, self.left = False, list[BlockState](), list[BlockState]()
        self._coming = [Request("1", None, (5, 6, 7), SamplingParams(max_tokens=64, ignore_eos=True))]
        self.leaves = False

    def next(self, idle: bool) -> Request | None:
        if self._coming:
            return self._coming.pop()
        if idle:
            self.left.append(self.told[-1])
            self.closed = True
        return None

    def withdrawn(self) -> Collection[str]:
        return ["1"] if self.leaves else []

    def refused(self, request_id: str, error: UsageError) -> None:
        raise error

    def tell(self, state: BlockState) -> None:
        self.told.append(state)


def test_a_place_that_was_given_up_is_told_free_while_nobody_comes() -> None:
    arrivals = OneWhoLeaves()
    with LLM(packaged_model_folder(), dtype="float32") as llm:
        for _ in llm.serve(arrivals, Workload(num_prompts=4, prompt_len=16, gen_len=64)):
            arrivals.leaves = True
    [state] = arrivals.left
    assert any(told.running == 1 and told.used_pages for told in arrivals.told)
    assert (state.running, state.used_pages) == (0, 0)
