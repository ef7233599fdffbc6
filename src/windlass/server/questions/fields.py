"""Which fields of a question are honoured, passed over or refused: the one rule for both ways of asking.

* A field that a body declares is honoured, or refused with its reason.
* A field of FOREIGN would change the answer and cannot be honoured: it is taken at the values that ask for nothing.
* A field that reads like a declared one misspelt is refused: an answer drawn otherwise than asked is worse than none.
* Any other field is passed over, as labels (`user`, `metadata`) and what clients send to other servers.

`null` asks for nothing, wherever it stands.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from windlass.server.errors.api_error import bad_request

_LIKE = 0.85  # how alike two names must be for one to be the other misspelt: `temprature`, `max_token`

_MOST = 100  # fields that a body does not declare: each is compared with all that it does

FOREIGN: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (True,),
    "audio": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "early_stopping": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "reasoning_effort": ("none",),
    "spaces_between_special_tokens": (True,),
    "suffix": ("",),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# What is declared for one way of asking and would change the answer to the other.
BELONGS_ELSEWHERE = {
    "messages": "/v1/chat/completions",
    "tools": "/v1/chat/completions",
    "tool_choice": "/v1/chat/completions",
    "top_logprobs": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "echo": "/v1/completions",
    "best_of": "/v1/completions",
}
_ASKS_FOR_NOTHING = {"echo": (False,), "best_of": (1,), "tools": ([],), "tool_choice": ("none", "auto")}


def check_fields(extra: Mapping[str, object], declared: Collection[str]) -> None:
    """Judges the fields that a body does not declare. Raises ApiError for the first to be refused."""
    if len(extra) > _MOST:
        raise bad_request(f"there are {len(extra)} fields that are not known here, {_MOST} may be; leave them out")
    for name, value in extra.items():
        if value is None:
            continue
        if name in FOREIGN:
            if value not in FOREIGN[name]:
                raise bad_request(
                    f"{name} {value!r:.60} is not supported and would change the answer; leave it out", name
                )
        elif name in BELONGS_ELSEWHERE:
            if value not in _ASKS_FOR_NOTHING.get(name, ()):
                raise bad_request(f"{name} is a field of {BELONGS_ELSEWHERE[name]}; leave it out here", name)
        elif close := get_close_matches(name, declared, n=1, cutoff=_LIKE):
            raise bad_request(f"there is no field {name!r:.60}; did you mean {close[0]}?", name)
