"""When an answer ends, why, and what of its text may be shown on the way."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from windlass.engine.stopping import Finish, StopCheck
from windlass.errors import UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.model.detokenizer import Detokenizer
from windlass.model.tokenizer import NoTokenizer, Tokenizer

END, SECOND_END, BYTES = 0, 1, 26 + 3
WORDS = [
    "</s>",
    "<|end|>",
    "<pad>",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"<0x{b:02X}>" for b in range(256)),
    "stop",
    "op!",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Ids 0 to 2 are special, then a to z, then the 256 bytes, then two pieces of several letters."""
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["</s>", "<|end|>", "<pad>"])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>"))


def ids_of(text: str) -> list[int]:
    return [WORDS.index(letter) for letter in text]


class Follow:
    """A StopCheck fed with ids until it ends, remembering what was shown after each."""

    def __init__(self, tokenizer: Tokenizer, ids: Iterable[int], limit: int = 100, **params: Any) -> None:
        self.check = StopCheck(
            SamplingParams(max_tokens=None, **params), (END, SECOND_END), limit, Detokenizer(tokenizer)
        )
        self.shown = []
        for token_id in ids:
            finish = self.check.take(token_id)
            self.shown.append(self.check.text)
            if finish:
                break


def test_an_answer_goes_on_until_an_end_id_which_shows_no_text(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, [*ids_of("ab"), SECOND_END, *ids_of("c")])
    assert follow.shown == ["a", "ab", "ab"]
    assert follow.check.finish == Finish("stop", None)
    assert follow.check.token_count == 3


def test_ignore_eos_goes_on_past_end_ids_but_not_past_stop_ids(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, [*ids_of("a"), END, *ids_of("bz")], ignore_eos=True, stop_token_ids=ids_of("z"))
    assert follow.shown[-1] == "ab"
    assert follow.check.finish == Finish("stop", ids_of("z")[0])


def test_a_stop_id_is_shown_only_when_asked_for(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, ids_of("abz"), stop_token_ids=ids_of("z"), include_stop_str_in_output=True)
    assert follow.check.text == "abz"


def test_the_length_limit_ends_an_answer_with_all_its_text(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, ids_of("abcdef"), limit=3, stop=["cx"])
    assert follow.shown == ["a", "ab", "abc"]
    assert follow.check.finish == Finish("length", None)


def test_an_end_id_at_the_length_limit_is_a_stop(tokenizer: Tokenizer) -> None:
    assert Follow(tokenizer, [*ids_of("a"), END], limit=2).check.finish == Finish("stop", None)


def test_a_stop_string_may_span_tokens_and_none_of_it_is_ever_shown(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, ids_of("abstopc"), stop="stop")
    assert follow.shown == ["a", "ab", "ab", "ab", "ab", "ab"]
    assert follow.check.finish == Finish("stop", "stop")


def test_text_that_only_began_like_a_stop_string_is_shown_when_it_turns_out_otherwise(tokenizer: Tokenizer) -> None:
    assert Follow(tokenizer, ids_of("astosx"), stop="stop").shown == ["a", "a", "a", "a", "asto", "astosx"]


def test_a_stop_string_inside_one_token_cuts_it(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, [*ids_of("a"), WORDS.index("stop")], stop="to")
    assert follow.shown == ["a", "as"]


def test_a_stop_string_stays_when_asked_for_but_nothing_behind_it(tokenizer: Tokenizer) -> None:
    ids = [*ids_of("ast"), WORDS.index("op!")]
    assert Follow(tokenizer, ids, stop="stop", include_stop_str_in_output=True).check.text == "astop"
    assert Follow(tokenizer, ids, stop="stop").check.text == "a"


def test_of_several_stop_strings_the_one_complete_first_wins_and_then_the_longest(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, [WORDS.index("stop")], stop=["op", "to", "sto"])
    assert follow.check.finish == Finish("stop", "sto")
    assert follow.check.text == ""


def test_min_tokens_bans_end_and_stop_ids_and_overlooks_stop_strings(tokenizer: Tokenizer) -> None:
    follow = Follow(tokenizer, ids_of("aba"), stop="ab", min_tokens=3, stop_token_ids=ids_of("z"))
    assert follow.check.finish is None
    assert follow.check.banned_token_ids == ()
    fresh = StopCheck(SamplingParams(min_tokens=1, stop_token_ids=[9]), (END,), 9, Detokenizer(tokenizer))
    assert fresh.banned_token_ids == (END, 9)
    late = Follow(tokenizer, ids_of("abaab"), stop="ab", min_tokens=3)
    assert (late.check.finish, late.check.text) == (Finish("stop", "ab"), "aba")


def test_a_stop_string_is_seen_in_a_byte_run_that_is_still_held(tokenizer: Tokenizer) -> None:
    newline = BYTES + ord("\n")
    follow = Follow(tokenizer, [*ids_of("ab"), newline, newline, *ids_of("c")], stop="\n\n")
    assert follow.shown == ["a", "ab", "ab", "ab"]
    assert follow.check.finish == Finish("stop", "\n\n")


def test_text_held_as_a_possible_beginning_comes_out_when_an_end_id_ends_the_answer(tokenizer: Tokenizer) -> None:
    assert Follow(tokenizer, [*ids_of("ast"), END], stop="stop").shown == ["a", "a", "a", "ast"]


def test_without_text_ids_still_end_an_answer_and_stop_strings_are_refused() -> None:
    textless = Detokenizer(NoTokenizer("folder"))
    check = StopCheck(SamplingParams(), (END,), 9, textless)
    assert (check.take(5), check.take(END), check.text) == (None, Finish("stop"), "")
    with pytest.raises(UsageError, match="needs text.*stop_token_ids"):
        StopCheck(SamplingParams(stop="x"), (END,), 9, textless)


@given(text=st.text("ab", max_size=30), stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_streaming_never_takes_text_back_and_cuts_where_a_search_of_the_whole_text_would(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    follow = Follow(tokenizer, [*ids_of(text), END], stop=stops)
    for before, after in zip(follow.shown, follow.shown[1:], strict=False):
        assert after.startswith(before)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert follow.check.text == (text[: min(ends)[1]] if ends else text)
