"""The width each number in a config gets in a twin: one rule a kind of name, none a family.

Sizes keep their proportions to the hidden size, heads keep the shape of their grouping, thresholds come down to where
a sequence of a few dozen tokens lies on both sides of each.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HIDDEN, HEADS, HEAD_DIM, WIDE_HEAD_DIM, EXPERTS, VOCABULARY = 64, 4, 16, 32, 8, 128
POSITIONS = 96  # enough for the longest trial and its decode steps where positions are a table
DYNAMIC_POSITIONS = 32  # max_position_embeddings is itself the threshold of dynamic rotary scaling
ORIGINAL_POSITIONS = 24

Rule = Callable[["Sizes", int], int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a config's numbers are measured against; each pair is (full, twin)."""

    hidden: tuple[int, int]
    heads: tuple[int, int]
    head_dim: tuple[int, int]
    vocabulary: int  # full
    max_positions: tuple[int, int]

    def same(self, full: int) -> int:
        """A number that a rule further down would take for something else."""
        return full

    def width(self, full: int) -> int:
        """A projection or feed-forward size, in proportion to the hidden size."""
        if full == self.hidden[0]:
            return self.hidden[1]
        return min(full, 256, max(16, 16 * round(full * self.hidden[1] / self.hidden[0] / 16)))

    def head_count(self, full: int) -> int:
        """Query heads, or key-value heads beside them: one stays one, as many stay as many, fewer stay fewer."""
        if full > self.heads[0]:
            return 2 * self.heads[1]
        if full == self.heads[0]:
            return self.heads[1]
        return 1 if full <= 1 else min(full, max(1, self.heads[1] // 2))

    def head_width(self, full: int) -> int:
        """The size of a head or of a part of it; even, because halves of it are rotated. Sums are preserved."""
        return min(full, max(4, 2 * round(full * self.head_dim[1] / self.head_dim[0] / 2)))

    def token(self, full: int) -> int:
        """A special token's id, kept inside the vocabulary."""
        return full if full < VOCABULARY else VOCABULARY - 1 - full % 8

    def words(self, full: int) -> int:
        """A vocabulary; one smaller than the main one stays smaller."""
        return min(full, VOCABULARY if full >= self.vocabulary else VOCABULARY - 8)

    def positions(self, full: int) -> int:
        """A number of positions, in the ratio to its original number that scaled rotary tables depend on."""
        return min(full, round(full * self.max_positions[1] / self.max_positions[0]))


def measure(values: Mapping[str, Any]) -> Sizes:
    """Reads the full sizes out of a config's values (by transformers' common names) and picks the twin's."""
    hidden, heads = int(values["hidden_size"]), int(values.get("num_attention_heads") or HEADS)
    hidden_twin = min(HIDDEN, hidden)
    heads_twin = max(count for count in (1, 2, 4) if count <= heads)
    even = max(1, hidden // heads)
    head = values.get("qk_nope_head_dim") or values.get("head_dim") or even
    if isinstance(head, int) and head != even and not values.get("qk_nope_head_dim"):
        head_twin = WIDE_HEAD_DIM
    else:
        head_twin = hidden_twin // heads_twin
    return Sizes(
        hidden=(hidden, hidden_twin),
        heads=(heads, heads_twin),
        head_dim=(head, min(head, head_twin)),
        vocabulary=int(values.get("vocab_size") or VOCABULARY),
        max_positions=_positions(values),
    )


def _positions(values: Mapping[str, Any]) -> tuple[int, int]:
    full = values.get("max_position_embeddings") or POSITIONS
    ropes = _rope_settings(values.get("rope_parameters") or {})
    if any("dynamic" in str(rope.get("rope_type")) for rope in ropes):
        return full, min(full, DYNAMIC_POSITIONS)
    for rope in ropes:
        original = rope.get("original_max_position_embeddings")
        if original:
            return original, min(original, ORIGINAL_POSITIONS)
    return full, min(full, POSITIONS)


def _rope_settings(rope: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rotary settings of a config: one, or one for each kind of layer."""
    nested = [value for value in rope.values() if isinstance(value, Mapping)]
    return nested or [rope]


def at_most(limit: int) -> Rule:
    """A rule: the number itself, but no more than `limit`."""
    return lambda sizes, full: min(full, limit)


# The first pattern that matches the whole of a name decides; a name that none matches keeps its number.
RULES: tuple[tuple[str, Rule], ...] = (
    (r".*(_token_id|_token_index|_index)", Sizes.token),
    (r"type_vocab_size|.*chunk_size_feed_forward|.*(kernel|conv1d)(_size|_dim|_width)?|dt_rank", Sizes.same),
    (r".*vocab.*", Sizes.words),
    # thresholds
    (r".*(sliding_window|window_size|window_len|local_attention|window)", at_most(12)),
    (r"attention_chunk_size", at_most(16)),
    (r"floor_scale|.*n_floor", at_most(20)),
    (r"index_topk|rel_extent", at_most(10)),
    (r"index_block_size|compressed_sparse_attention", at_most(4)),
    (r"heavily_compressed_attention", at_most(8)),
    (r"index_topk_blocks", at_most(3)),
    (r".*max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|model_max_length", Sizes.positions),
    # experts
    (r"n_group|num_expert_group", at_most(4)),
    (r"topk_group", at_most(2)),
    (r".*shared_experts?|.*n_shared.*", at_most(2)),
    (r"(moe_)?top_?k(_experts)?|moe_k|num_experts_per_tok(en)?", at_most(2)),
    (r".*(num|n)_(local_|routed_|moe_)?experts|.*num_experts|zero_expert_num", at_most(EXPERTS)),
    # heads
    (r".*(head_?dim|head_size|d_head|kv_channels|rotary_dim|dim_head)|query_pre_attn_scalar", Sizes.head_width),
    (r".*(_heads|_head|query_groups)(_per_layer)?", Sizes.head_count),
    # widths
    (r".*rank|.*state(_size)?|.*chunk_size", at_most(16)),
    (r".*(hidden|_size|_dim|width|n_embd|d_model|dff|dim_ff|_inner|d_ssm|channels|size_mlp|dim_model_base).*",
     Sizes.width),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), rule) for pattern, rule in RULES)


def shrink_number(name: str, full: int, sizes: Sizes) -> int:
    """The twin's value of the config entry `name`."""
    for pattern, rule in _COMPILED:
        if pattern.fullmatch(name):
            return rule(sizes, full) if full > 0 else full
    return full
