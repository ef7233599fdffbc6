"""What a request must be for a model to take it, and what becomes of it: answers to generate, or a passage to score."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from windlass.engine.arguments import read_whole
from windlass.engine.bad_words import bad_words
from windlass.engine.continuations import Continued
from windlass.engine.grammar import Grammar
from windlass.engine.grammars import Grammars
from windlass.engine.opened_model import OpenedModel
from windlass.engine.passage import Passage
from windlass.engine.prompt_scan import PromptScan
from windlass.engine.sequence import Sequence as Answer
from windlass.engine.stopping import StopCheck
from windlass.errors import RequestError, UsageError
from windlass.facts.request import Request
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.model.detokenizer import Detokenizer

LOG = logging.getLogger("windlass")

# Of requests from which nothing is drawn.
_UNUSED = SamplingParams()


class Admission:
    """For one opened model. `seed` is for requests that bring none; `numbers` numbers what is admitted."""

    def __init__(self, opened: OpenedModel, seed: int, numbers: Iterator[int]) -> None:
        self.opened, self._seed, self._numbers = opened, seed, numbers
        self._told_cut = False
        self._grammars = Grammars(opened.tokenizer, opened.facts.vocab_size, opened.defaults.eos_token_ids)

    def close(self) -> None:
        """Ends what works beside the engine; what is admitted next has another."""
        self._grammars.close()

    def check(self, params: SamplingParams) -> None:
        """Raises UsageError for parameters that make no sense for this model: ids it lacks, texts without tokenizer.

        RequestError for a form that no answer can be held to.
        """
        params.check_vocabulary(self.opened.facts.vocab_size)
        bad_words(self.opened.tokenizer, params.bad_strings)
        self._stop_check(params, 1)
        if params.structured_outputs is not None:
            self._grammars.check(params.structured_outputs)

    def check_request(self, request: Request) -> None:
        """Raises RequestError for a prompt that leaves no room or has ids that are none, and what check raises."""
        limit = self.opened.facts.max_model_len
        if len(request.prompt_token_ids) >= limit:
            raise RequestError(
                f"request {request.request_id}: the prompt has {len(request.prompt_token_ids)} tokens, the model takes "
                f"{limit} with the answer; shorten the prompt or raise --max-model-len if it was lowered"
            )
        self._check_ids(request)
        self.check(request.sampling_params)

    def answers(self, request: Request) -> list[Answer]:
        """The `n` answers to a request. Raises what check_request raises."""
        params, limit = request.sampling_params, self.opened.facts.max_model_len
        self.check_request(request)
        room = limit - len(request.prompt_token_ids)
        if params.max_tokens is not None and params.max_tokens > room:
            self._tell_cut(params.max_tokens, len(request.prompt_token_ids), limit)
        most = min(params.max_tokens or room, room)
        seed = params.seed if params.seed is not None else self._seed + int(request.request_id)
        words, bad = self.opened.tokenizer, bad_words(self.opened.tokenizer, params.bad_strings)
        stops = [self._stop_check(params, most) for _ in range(params.n)]
        answers = [
            Answer(
                next(self._numbers), request, index, seed, stop, most, tokenizer=words, bad_words=bad,
                grammar=self._grammar(params),
            )
            for index, stop in enumerate(stops)
        ]  # fmt: skip
        for answer, token_ids in zip(answers, request.begun, strict=False):
            answer.replay(token_ids)
        if params.prompt_logprobs is not None:
            # The first that goes on reads the prompt.
            reader = next((answer for answer in answers if not answer.finished), None)
            if reader is None:
                return self.answers(replace(request, begun=()))
            reader.scan = PromptScan(request.prompt_token_ids, params.prompt_logprobs, words)
        return answers

    def groups(self, requests: Iterable[Request], workload: Workload) -> Iterator[list[Answer]]:
        """The answers to each request as its turn comes. Raises UsageError for what is no workload or no request."""
        if not isinstance(workload, Workload):
            raise UsageError(
                f"workload must be a Workload, got {workload!r:.60} ({type(workload).__name__}); say what to plan for, "
                "as in Workload(num_prompts=1000, prompt_len=512, gen_len=64)"
            )
        return (self.answers(_a_request(request)) for request in requests)

    def passages(self, requests: Sequence[Request], first: int | Sequence[int]) -> list[Passage]:
        """The prompts, to be scored from the place `first` on: one for all, or one each.

        Raises UsageError where `first` makes no sense, RequestError for a prompt that is too long or ends before it.
        """
        firsts = list(first) if isinstance(first, Sequence) else [first] * len(requests)
        if len(firsts) != len(requests):
            raise UsageError(f"{len(requests)} prompts were given with {len(firsts)} first; give one, or one a prompt")
        return [self._passage(request, place) for request, place in zip(requests, firsts, strict=True)]

    def continuations(self, groups: Sequence[Sequence[Continued]]) -> list[list[Passage]]:
        """What may follow each prompt, to be scored. Raises as passages does."""
        return [
            [self._passage(Request(str(next(self._numbers)), None, one.token_ids, _UNUSED), one.first) for one in group]
            for group in groups
        ]

    def _passage(self, request: Request, first: int) -> Passage:
        place, count, limit = read_whole("first", first), len(request.prompt_token_ids), self.opened.facts.max_model_len
        if place < 1:
            raise UsageError(f"first must be 1 or more, got {place}: nothing stands before the token at 0")
        if count <= place:
            raise RequestError(
                f"request {request.request_id}: the prompt has {count} token(s), scoring from place {place} on needs "
                f"{place + 1} at least; give a longer prompt"
            )
        if count > limit:
            raise RequestError(
                f"request {request.request_id}: the prompt has {count} tokens, the model takes {limit}; score it in "
                "windows, or raise --max-model-len if it was lowered"
            )
        self._check_ids(request)
        return Passage(next(self._numbers), request, place)

    def _check_ids(self, request: Request) -> None:
        worst = max(max(ids, default=0) for ids in (request.prompt_token_ids, *request.begun))
        if worst >= self.opened.facts.vocab_size:
            raise RequestError(
                f"request {request.request_id}: token id {worst} is not below the vocabulary's size, "
                f"{self.opened.facts.vocab_size}; encode the prompt with this model's tokenizer"
            )

    def _tell_cut(self, asked: int, prompt_len: int, limit: int) -> None:
        """Once: what holds for one prompt mostly holds for the next."""
        if not self._told_cut:
            self._told_cut = True
            LOG.warning(
                "max_tokens=%d is cut to %d: a prompt of %d tokens leaves no more of the %d that this model takes",
                asked, limit - prompt_len, prompt_len, limit,
            )  # fmt: skip

    def _grammar(self, params: SamplingParams) -> Grammar | None:
        form = params.structured_outputs
        return None if form is None else self._grammars.begin(form)

    def _stop_check(self, params: SamplingParams, most: int) -> StopCheck:
        words = Detokenizer(self.opened.tokenizer, params.skip_special_tokens)
        return StopCheck(params, self.opened.defaults.eos_token_ids, most, words)


def _a_request(request: Request) -> Request:
    if not isinstance(request, Request):
        raise UsageError(
            f"a request must be a Request, got {request!r:.60} ({type(request).__name__}); make one, as in "
            'Request("0", None, tuple(token_ids), SamplingParams(max_tokens=16))'
        )
    return request
