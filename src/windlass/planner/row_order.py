"""In which order the rows of a window are asked. It never changes an answer, only how much is computed for it."""

from collections import defaultdict
from collections.abc import Sequence

SHARED = 64
"""Tokens that two prompts must begin with alike to be asked one after the other."""


def row_order(prompts: Sequence[Sequence[int]], gen_lens: Sequence[int]) -> list[int]:
    """The places of the prompts (token ids) in the order to ask them; `gen_lens` is how long answers may become.

    Prompts that begin alike stand together, so that what they share is there when the next one comes. Otherwise the
    longest answer goes first, since each of its tokens takes a pass: one that begins last would run on alone.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[tuple(prompt[:SHARED]) if len(prompt) >= SHARED else (-1, place)].append(place)

    def length(place: int) -> tuple[int, int]:
        return gen_lens[place], len(prompts[place])

    for group in groups.values():
        group.sort(key=length, reverse=True)
    ordered = sorted(groups.values(), key=lambda group: length(group[0]), reverse=True)
    return [place for group in ordered for place in group]
