"""How long a conversation the engine is prepared for: room in advance, so that a turn seldom loads the model again."""

from windlass.engine.llm import LLM
from windlass.errors import BudgetError, RequestError
from windlass.facts.plan import Plan
from windlass.facts.workload import Workload

# Tokens of an ordinary conversation: keys and values for so many are cheap beside the weights.
COMFORTABLE = 4096
# A budget without room for so many is too small to chat in.
LEAST = 256


class ChatRoom:
    """`tokens` is what the present plan has room for, prompt and answer together; `most` bounds an answer."""

    def __init__(self, llm: LLM, most: int | None) -> None:
        self._llm = llm
        self.limit: int = llm.opened.facts.max_model_len
        self.most = min(most or self.limit, self.limit)
        self.tokens = min(self.limit, COMFORTABLE)

    def prepare(self) -> Plan:
        """Loads the model with comfortable room, or as much as the budget has. Raises BudgetError."""
        least = min(self.limit, LEAST)
        while True:
            try:
                return self._llm.prepare(self._workload(self.tokens))
            except BudgetError:
                if self.tokens <= least:
                    raise
                self.tokens = max(self.tokens // 2, least)

    def answer_tokens(self, prompt_len: int) -> int:
        """Makes sure of the room for a prompt; returns how many tokens its answer may have.

        Raises RequestError for a prompt that the model cannot take, BudgetError for one that the budget cannot.
        """
        if prompt_len >= self.limit:
            raise RequestError(
                f"the conversation has {prompt_len} tokens with this message, and the model takes {self.limit} with "
                f"the answer; the message was not added: shorten it, or begin anew with /clear (/save keeps what was "
                f"said)"
            )
        wanted = min(prompt_len + self.most, self.limit)
        if wanted > self.tokens:
            self._grow(wanted, prompt_len + 1)
        self._llm.prepare(self._workload(self.tokens))
        return min(self.most, self.tokens - prompt_len)

    def _grow(self, wanted: int, least: int) -> None:
        """Doubles the room, or takes just what is wanted, or stays where that still does."""
        refused: BudgetError | None = None
        for room in dict.fromkeys((min(self.limit, max(wanted, 2 * self.tokens)), wanted)):
            try:
                self._llm.prepare(self._workload(room))
            except BudgetError as error:
                refused = error
            else:
                self.tokens = room
                return
        if least > self.tokens:
            raise BudgetError(f"{refused}, or begin a shorter conversation with /clear") from refused

    def _workload(self, room: int) -> Workload:
        gen_len = max(1, min(self.most, room // 2))
        return Workload(1, max(1, room - gen_len), gen_len)
