"""What every Answerer around an LLM tells of its model alike."""

from windlass.engine.llm import LLM
from windlass.facts.sampling_params import SamplingParams
from windlass.model.tokenizer import AnyTokenizer


class LLMAnswerer:
    """The part of an Answerer that depends on the model alone, to be derived from."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def vocab_size(self) -> int:
        """Token ids of a prompt are below it."""
        size: int = self._llm.opened.facts.vocab_size
        return size

    @property
    def tokenizer(self) -> AnyTokenizer:
        """The model's."""
        return self._llm.tokenizer

    def check(self, sampling_params: SamplingParams) -> None:
        """Raises UsageError for parameters that make no sense for this model."""
        self._llm.check(sampling_params)
