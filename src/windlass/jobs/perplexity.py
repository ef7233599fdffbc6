"""Perplexity of a text under a model that may not fit memory: all windows are one block, scored in few passes."""

import hashlib
import struct
from collections.abc import Sequence

from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.perplexity import Perplexity, WindowScore
from windlass.facts.text_window import LLAMA_CPP, TextWindow, Windowing
from windlass.facts.workload import Workload


def prepare(llm: LLM, text: str, windowing: Windowing) -> "PreparedText":
    """Cuts the text into tokens and windows, and loads the model for them. Raises UsageError for too short a text."""
    settled = windowing.for_model(llm.opened.facts.max_model_len)
    text = text[: settled.most_characters]
    ids = llm.tokenizer.encode(text)
    windows = settled.windows(len(ids))
    if not windows:
        needed = settled.context if settled.convention == LLAMA_CPP else 2
        raise UsageError(f"the text has {len(ids)} token(s), one window takes {needed} at least; give a longer text")
    prepared = PreparedText(llm, text, ids, settled, windows)
    llm.prepare(Workload(len(windows), max(map(len, prepared.prompts)), 1, scored=True))
    return prepared


class PreparedText:
    """The tokens `ids` of a text, cut into windows; `prompts` are their ids."""

    def __init__(
        self, llm: LLM, text: str, ids: Sequence[int], windowing: Windowing, windows: Sequence[TextWindow]
    ) -> None:
        self.llm, self.text, self.ids, self.windowing, self.windows = llm, text, ids, windowing, windows
        self.prompts = [self._prompt(window) for window in windows]

    def score(self, name: str) -> Perplexity:
        """Scores every window of the text; `name` is what the model is called."""
        before = self.llm.report
        asked = [{"prompt_token_ids": prompt} for prompt in self.prompts]
        scores = self.llm.score(asked, first=[window.first for window in self.windows])
        after, every = self.llm.report, [token for prompt in self.prompts for token in prompt]
        return Perplexity(
            model=name,
            windowing=self.windowing,
            scores=tuple(WindowScore(score.scored, score.nats) for score in scores),
            text_bytes=len(self.text.encode()),
            text_tokens=len(self.ids),
            fingerprint=hashlib.sha256(struct.pack(f"<{len(every)}q", *every)).hexdigest(),
            read_tokens=after.prefill_tokens - before.prefill_tokens,
            passes=after.prefill_passes - before.prefill_passes,
            seconds=after.prefill_seconds - before.prefill_seconds,
        )

    def _prompt(self, window: TextWindow) -> list[int]:
        """llama.cpp has every window begin with the begin token, in place of its first, where the text has one."""
        ids, begin = list(self.ids[window.start : window.stop]), self.llm.tokenizer.bos_token_id
        if self.windowing.convention == LLAMA_CPP and begin is not None and self.ids[0] == begin:
            ids[0] = begin
        return ids
