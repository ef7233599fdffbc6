"""What every route works with: the service that answers, and what a question is judged by before it gets there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from windlass.errors import RequestError
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.batch_queue.batch_queue import BatchQueue
from windlass.jobs.service.service import Service
from windlass.model.chat_prompt import chat_prompt
from windlass.model.tokenizer import AnyTokenizer
from windlass.server.doors.limits import ServerLimits
from windlass.server.errors.api_error import bad_request, not_found
from windlass.server.telling.waits import Waits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """`model` is what clients call it, of `vocab_size` ids; `defaults` hold where a question says nothing.

    `also` is another name that is taken and never told, None for none: a path tells of its owner's folders.
    """

    service: Service
    model: str
    tokenizer: AnyTokenizer
    vocab_size: int
    defaults: SamplingParams
    limits: ServerLimits
    waits: Waits
    batches: BatchQueue | None = None
    also: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    _readers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.service.max_model_len

    def check_model(self, name: str | None) -> None:
        """Raises ApiError where another model is asked for."""
        if name not in (None, self.model, self.also):
            raise not_found(
                f"there is no model {name!r:.200}; this server has {self.model!r}", "model", "model_not_found"
            )

    def talk(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Token ids of a conversation up to where the answer begins.

        Raises ApiError, and UsageError for a model without tokenizer.
        """
        try:
            prompt = chat_prompt(self.tokenizer, messages, tools)
        except RequestError as error:
            raise bad_request(str(error), "messages") from error
        self.check_text("messages", prompt.text)
        return tuple(prompt.ids(self.tokenizer))

    def check_text(self, param: str, text: str) -> None:
        """Raises ApiError for a text that is too long whatever its tokens are, before anybody looks for them.

        To find them takes seconds and hundreds of bytes a character for every million of them.
        """
        most = self.max_model_len * self.tokenizer.longest_token
        if len(text) > most:
            raise bad_request(
                f"{param} has {len(text)} characters, and {self.max_model_len} tokens, all that the model takes, have "
                f"{most} at most; shorten it",
                param,
                "context_length_exceeded",
            )

    def check_length(self, param: str, prompt_len: int, asked: int | None) -> None:
        """Raises ApiError for a prompt and an answer that no sequence of the model holds."""
        if not prompt_len:
            raise bad_request(f"{param} has 0 tokens; write at least one character", param)
        if prompt_len + (asked or 1) > self.max_model_len:
            wanted = "" if asked is None else f" and {asked} to generate"
            raise bad_request(
                f"{param} of {prompt_len} tokens{wanted} is more than the {self.max_model_len} that the model takes "
                f"with the answer; shorten it{'' if asked is None else ' or lower max_tokens'}",
                param,
                "context_length_exceeded",
            )

    async def read(self, work: Callable[[], T]) -> T:
        """Runs what reads text in a thread, one at a time, so that a long prompt holds up nobody's stream."""
        return await to_thread.run_sync(work, limiter=self._readers)
