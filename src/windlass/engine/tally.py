"""What became of the sequences of a call, counted as they leave: it may have more than memory would list."""

from dataclasses import dataclass

from windlass.engine.sequence import Sequence


@dataclass(slots=True)
class Tally:
    """Of sequences that got a token at least; `prompt_tokens` counts each one's prompt."""

    sequences: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    _requests: int = 0

    def count(self, sequence: Sequence) -> None:
        """Adds a sequence that leaves."""
        if not sequence.token_ids:
            return
        self.sequences += 1
        self.prompt_tokens += len(sequence.request.prompt_token_ids)
        self.answer_tokens += len(sequence.token_ids)
        self._requests += sequence.sample_index == 0

    @property
    def prompts(self) -> int:
        """Requests of which an answer left: each of them read one prompt."""
        return max(1, self._requests) if self.sequences else 0

    @property
    def prompt_len(self) -> int:
        """Mean tokens of a prompt, rounded up."""
        return -(-self.prompt_tokens // max(1, self.sequences))

    @property
    def gen_len(self) -> int:
        """Mean tokens of an answer, rounded up."""
        return -(-self.answer_tokens // max(1, self.sequences))
