"""The model in this process answers a chat.

A model without a chat template is given the conversation as one text and goes on from it; `Conversation.continuing`
says in which form.
"""

from collections.abc import Generator
from dataclasses import replace

from windlass.engine.llm import LLM
from windlass.facts.completion import RequestOutput
from windlass.facts.conversation import Conversation
from windlass.facts.run_report import RunReport
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.chat_room import ChatRoom
from windlass.model.chat_prompt import chat_ids

WITHOUT_TEMPLATE = (
    "this model has no chat template: it is given all that was said as one text, a line for each message, and goes on "
    "from there"
)


class LocalAnswerer:
    """An Answerer. Raises UsageError for a model without tokenizer and for parameters that make no sense for it."""

    def __init__(self, llm: LLM, params: SamplingParams) -> None:
        self._llm, self._params = llm, params
        self._has_template = llm.tokenizer.has_chat_template
        if not self._has_template:
            llm.tokenizer.encode("?")
        llm.check(params)  # before the model is loaded, so that the plan counts what a form of answers takes
        self._room = ChatRoom(llm, params.max_tokens)

    @property
    def report(self) -> RunReport:
        """What was measured so far."""
        return self._llm.report

    def open(self) -> tuple[str, ...]:
        """Loads the model with room for a conversation. Raises BudgetError."""
        return tuple(self._room.prepare().lines())

    def notices(self) -> tuple[str, ...]:
        """How it is asked without a template, and how much room there is where that is little."""
        lines: tuple[str, ...] = () if self._has_template else (WITHOUT_TEMPLATE,)
        if self._room.tokens < min(self._room.limit, self._room.most):
            lines += (f"the budget has room for a conversation of {self._room.tokens} tokens",)
        return lines

    def ask(self, conversation: Conversation, question: str) -> Generator[RequestOutput, None, None]:
        """Raises RequestError for a conversation that the model cannot take, BudgetError."""
        ids = self._prompt(conversation, question)
        params = replace(self._params, max_tokens=self._room.answer_tokens(len(ids)))
        yield from self._llm.stream([{"prompt_token_ids": ids}], [params])

    def stats(self) -> tuple[str, ...]:
        """The report of the run."""
        return tuple(self.report.lines())

    def kept(self, output: RequestOutput) -> str:
        """With the space that parts a text from what goes on with it: some tokenizers drop it from the answer."""
        answer = output.outputs[0]
        if self._has_template:
            return answer.text
        before = self._llm.tokenizer.decode(output.prompt_token_ids)
        whole = self._llm.tokenizer.decode([*output.prompt_token_ids, *answer.token_ids])
        parted = whole.startswith(f"{before} ") and not answer.text.startswith(" ")
        return f" {answer.text}" if parted else answer.text

    def tokens(self, output: RequestOutput) -> int | None:
        """Prompt and answer."""
        return len(output.prompt_token_ids) + len(output.outputs[0].token_ids)

    def why_cut(self, output: RequestOutput) -> str:
        """By the flag, the budget, the model, or the form that was asked for."""
        answer = output.outputs[0]
        if isinstance(answer.stop_reason, str):
            return f"cut: {answer.stop_reason}"
        if len(answer.token_ids) >= self._room.most:
            return f"cut at {len(answer.token_ids)} tokens, as --max-tokens has it"
        if self._room.tokens < self._room.limit:
            return f"cut: the budget has room for {self._room.tokens} tokens; /clear begins anew"
        return f"cut: the conversation fills the {self._room.limit} tokens that the model takes; /clear begins anew"

    def context(self, tokens: str) -> str:
        """Beside what the model takes."""
        return f"{tokens} of {self._room.limit} tokens"

    def _prompt(self, conversation: Conversation, question: str) -> list[int]:
        """The token ids of all that was said and the question."""
        return chat_ids(self._llm.tokenizer, [message.as_dict() for message in conversation.asking(question)])
