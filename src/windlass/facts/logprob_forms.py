"""Log probabilities of an answer in OpenAI's two forms: columns for completions, an object a token for chats."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from windlass.facts.completion import Logprob

Json = dict[str, object]
Table = Mapping[int, Logprob]


def completion_logprobs(
    token_ids: Sequence[int], tables: Sequence[Table], first: Sequence[str] = (), offset: int = 0
) -> Json:
    """A table a token, which holds the drawn one too. `first` are texts of tokens before them that have none.

    `offset` is where their text begins; it is below 0 where the first of them, such as <s>, do not show.
    """
    chosen = [*first, *(_decoded(token, table) for token, table in zip(token_ids, tables, strict=True))]
    unknown: list[None] = [None] * len(first)
    return {
        "tokens": chosen,
        "token_logprobs": [*unknown, *(table[token].logprob for token, table in zip(token_ids, tables, strict=True))],
        "top_logprobs": [
            *unknown, *({_decoded(token, table): table[token].logprob for token in table} for table in tables),
        ],
        "text_offset": [max(0, place) for place in accumulate(map(len, chosen), initial=offset)][:-1],
    }  # fmt: skip


def chat_logprobs(token_ids: Sequence[int], tables: Sequence[Table], most: int) -> Json:
    """The drawn token belongs among the `most` top ones only by its rank, though its table holds it."""
    content = []
    for token, table in zip(token_ids, tables, strict=True):
        ranked = sorted((entry.rank, other) for other, entry in table.items() if entry.rank is not None)
        top = [other for rank, other in ranked if rank <= most]
        content.append(_chat_logprob(token, table) | {"top_logprobs": [_chat_logprob(other, table) for other in top]})
    return {"content": content, "refusal": None}


def _chat_logprob(token: int, table: Table) -> Json:
    text = _decoded(token, table)
    return {"token": text, "logprob": table[token].logprob, "bytes": list(text.encode())}


def _decoded(token: int, table: Table) -> str:
    return table[token].decoded_token or f"token_id:{token}"
