"""Executes passes: the only place that lends weights and starts kernels.

transformers' forward drives; each stand-in calls back here, and the runner does that slice of the schedule. It knows
nothing of requests or text.

T tokens of the row; H hidden size; R rows whose logits are wanted; V vocabulary.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn

from windlass.engine.crew import Crew
from windlass.engine.embedding_rows import EmbeddingRows
from windlass.engine.host_row import HostRow
from windlass.engine.logits_block import LogitsBlock
from windlass.engine.row import Pages, Row, RowSlice, RowSpan
from windlass.engine.trace import ComputeSpans
from windlass.engine.weights import Weights
from windlass.errors import DeviceError, UnsupportedModel
from windlass.facts.plan import Plan
from windlass.model.kvcache import KVCache
from windlass.model.layer_store import Batch
from windlass.model.rotary import DeferredTables
from windlass.model.tree import map_tree
from windlass.model.zoo import LiftedModel
from windlass.planner.schedule import Op, Schedule, Step, micro_batches, schedule
from windlass.planner.timeline import step_name
from windlass.units import MIB

LOG = logging.getLogger("windlass")

# Logits of this many bytes at a time where the head stays in memory and can be used again and again.
LOGITS_BYTES = 16 * MIB
# Around what is computed while nobody records.
_UNTIMED = nullcontext()


class Runner:
    """One model, one plan. `lifted` is set by `connect`, since stand-ins need their conductor first."""

    def __init__(self, plan: Plan, cache: KVCache, device: torch.device, crew: Crew) -> None:
        self.plan, self.cache, self.device, self.crew = plan, cache, device, crew
        self._pages = Pages(plan.page_tokens, plan.device_pages, plan.host_pages, plan.disk_pages)
        self.after_slice: Callable[[], None] = _nothing
        self.before_pass: Callable[[Sequence[Batch]], None] = _nothing
        self.spans: ComputeSpans | None = None
        self._lifted: LiftedModel
        self._weights: Weights
        self._embedding: EmbeddingRows
        self._narrows_late: bool
        self._host_row: HostRow | None
        self._row: Row
        self._schedule: Schedule
        self._slices: dict[int, RowSlice]
        self._first_row: torch.Tensor
        self._halvings = 0
        self._head_start = 0
        self._head_part: int | None = None
        self._head_answer: torch.Tensor | None = None

    def connect(
        self,
        lifted: LiftedModel,
        weights: Weights,
        embedding: EmbeddingRows,
        narrows_late: bool = False,
        host_row: HostRow | None = None,
    ) -> None:
        """Hands over the model whose stand-ins call this runner, and where its weights come from.

        The rows whose logits are wanted are picked after the last layer, or, where `narrows_late`, after the decoder.
        With `host_row` the row rests there between layers.
        """
        self._lifted, self._weights, self._embedding, self._host_row = lifted, weights, embedding, host_row
        self._narrows_late = narrows_late

    @torch.inference_mode()
    def run_pass(self, spans: Sequence[RowSpan]) -> Iterator[torch.Tensor]:
        """One pass over the model. Yields logits (r, V), the rows that want them in order, a few at a time.

        Where the head streams they come all at once: so few rows are meant as there are sequences.
        """
        yield from self._logits(self._decode(spans))

    @torch.inference_mode()
    def run_pass_in_blocks(self, spans: Sequence[RowSpan]) -> Iterator[LogitsBlock]:
        """As run_pass, for any number of rows: logits of a few rows over a part of the vocabulary at a time.

        Together they are the logits of every row over the whole vocabulary. A head of several parts is taken part by
        part though it stays in memory: the fewer ids at a time, the more rows, and the better its product. Raises
        UnsupportedModel where it streams so and the model's own code mixes logits.
        """
        hidden = self._decode(spans)
        if hidden.shape[1] and self._head_comes_by_parts(hidden[:, :1]):
            yield from self._blocks(hidden)
            return
        start = 0
        for logits in self._logits(hidden):
            yield LogitsBlock(start, 0, logits)
            start += logits.shape[0]

    def _decode(self, spans: Sequence[RowSpan]) -> torch.Tensor:
        """The decoder over the spans -> the rows whose logits are wanted (1, R, H)."""
        self._row = row = Row(spans, self.device)
        self._schedule = schedule(self.plan, row.tokens, len(row.wanted))
        table = self.cache.table
        self._slices = {
            start: row.cut(start, stop, table, self._pages) for start, stop in micro_batches(self.plan, row.tokens)
        }
        self.before_pass([piece.batch for piece in self._slices.values()])
        hidden = self._lifted.decoder.run(
            input_ids=row.ids, position_ids=row.positions, past_key_values=self.cache, use_cache=True
        )  # (1, R, H)
        return hidden[:, row.wanted] if self._narrows_late else hidden

    def embed(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """ids (1, T) -> row (1, T, H)."""
        with self.spans.span("compute embedding") if self.spans else _UNTIMED:
            self._first_row = self._embed(embedding, ids)
        return self._first_row

    def _embed(self, embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        if self._host_row is None:
            return self._embedding.look_up(embedding, ids)
        self._host_row.begin_layer()
        for start in range(0, ids.shape[1], self.plan.micro_batch_tokens):
            part = ids[:, start : start + self.plan.micro_batch_tokens]
            self._host_row.store(start, self._embedding.look_up(embedding, part))
        return self._host_row.stand_in(ids.shape[1])

    def layer(
        self, index: int, layer: nn.Module, row: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Layer `index`'s slice of the schedule over the whole row (1, T, H), in place."""
        if index == 0:
            self._forget_first_row(row)
        if self._host_row is not None:
            self._host_row.begin_layer()
        result: Any = None
        for op, steps in groupby(self._schedule.by_part[index], key=lambda step: step.op):
            if op is Op.LEND:
                self._weights.lend(index)
            elif op is Op.COMPUTE:
                computing = [partial(self._compute, layer, row, step, args, kwargs) for step in steps]
                result = self.crew.run(computing, together=self.plan.far_pages > 0)[-1]
            elif op is Op.TAKE_BACK:
                self._weights.take_back(index)
        self.after_slice()
        if index == len(self._lifted.layers) - 1 and not self._narrows_late:
            row = row[:, self._row.wanted] if self._host_row is None else self._host_row.pick(self._row.wanted)
        return (row, *result[1:]) if isinstance(result, tuple) else row

    def head(self, head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, r, H) -> logits (1, r, V), a part of the head after the other, or those of the part in turn."""
        if self._head_answer is not None:
            return self._head_answer
        if self._head_part is not None:
            return self._head(head, hidden, self._head_part)
        logits = []
        for part in range(len(self._lifted.layers), len(self.plan.slices)):
            self._weights.lend(part)
            logits.append(self._head(head, hidden, part))
            self._weights.take_back(part)
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=-1)

    def _head(self, head: nn.Module, hidden: torch.Tensor, part: int) -> torch.Tensor:
        """hidden (1, r, H) -> logits (1, r, v) of a part of the head that is lent."""
        step = Step(Op.COMPUTE, part, self._head_start, self._head_start + hidden.shape[1])
        with self.spans.span(step_name(self.plan, step)) if self.spans else _UNTIMED:
            logits: torch.Tensor = head(hidden)
            return logits

    def announce_experts(self, layer: int, experts: tuple[int, ...]) -> None:
        """Lets the disk begin with the experts a micro-batch is about to use."""
        assert self._weights.shelf is not None
        self._weights.shelf.announce(layer, experts)

    def expert(self, layer: int, expert: int) -> Mapping[str, torch.Tensor]:
        """One expert's weights by the last part of the parameter's name."""
        assert self._weights.shelf is not None
        weights = self._weights.shelf.take(layer, expert)
        return {name.rpartition(".")[2]: weight for name, weight in weights.items()}

    def _compute(
        self, layer: nn.Module, row: torch.Tensor, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """One micro-batch through a layer."""
        with self.spans.span(step_name(self.plan, step)) if self.spans else _UNTIMED:
            return self._compute_step(layer, row, step, args, kwargs)

    def _compute_step(
        self, layer: nn.Module, row: torch.Tensor, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """A micro-batch that the device has no memory for is halved, and so are later ones."""
        pieces, result = [self._slices[step.start]], None
        while pieces:
            try:
                result = self._compute_piece(layer, row, pieces[0], args, kwargs)
            except torch.OutOfMemoryError as error:
                failed = pieces[0].stop - pieces[0].start
                if failed == 1:
                    raise DeviceError(
                        f"{self.device} has no memory left for a single token though the plan counts on it: something "
                        "else took it; free it, or lower --gpu-memory so that less is planned"
                    ) from error
            else:
                del pieces[0]
                continue
            # Here the failed attempt's tensors are gone with its traceback.
            pieces[:1] = self._halved(pieces[0])
            self._take_smaller_steps(failed // 2)
        return result

    def _halved(self, piece: RowSlice) -> list[RowSlice]:
        middle = (piece.start + piece.stop) // 2
        edges = ((piece.start, middle), (middle, piece.stop))
        return [self._row.cut(start, stop, self.cache.table, self._pages) for start, stop in edges]

    def _take_smaller_steps(self, tokens: int) -> None:
        if tokens < self.plan.micro_batch_tokens:
            if not self._halvings:
                LOG.warning("the device ran out of memory: micro-batches are now of at most %d tokens", tokens)
            self._halvings += 1
            self.plan = replace(self.plan, micro_batch_tokens=tokens)

    def _compute_piece(
        self, layer: nn.Module, row: torch.Tensor, piece: RowSlice, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Rows through a layer; they are replaced where they stand."""
        self.cache.begin(piece.batch, self._row.positions[0, piece.start : piece.stop])
        tokens = row.shape[1]
        whole = piece.stop - piece.start == tokens

        def narrowed(leaf: Any) -> Any:
            if isinstance(leaf, DeferredTables):
                return leaf.resolve_rows(self._row.positions, piece.start, piece.stop, piece.lengths)
            if not whole and isinstance(leaf, torch.Tensor) and leaf.ndim >= 2 and leaf.shape[:2] == (1, tokens):
                return leaf[:, piece.start : piece.stop]
            return leaf

        narrow_args = [map_tree(narrowed, item) for item in args]
        narrow_kwargs = {name: map_tree(narrowed, item) for name, item in kwargs.items()}
        hidden = row[:, piece.start : piece.stop]
        if self._host_row is not None:
            hidden = self._host_row.load(piece.start, piece.stop)
        result = layer(hidden, *narrow_args, **narrow_kwargs)
        computed = result[0] if isinstance(result, tuple) else result
        if self._host_row is not None:
            self._host_row.store(piece.start, computed)
        else:
            row[:, piece.start : piece.stop] = computed
        return result

    def _logits(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """The model's own head code over a few of the rows (1, R, H) at a time."""
        rows = hidden.shape[1]
        if not rows:
            self._let_head_pass()
            return
        at_once = rows if self._head_streams else max(1, LOGITS_BYTES // (4 * self._lifted.model.config.vocab_size))
        for start in range(0, rows, at_once):
            yield self._show(hidden, start, start + at_once)

    def _show(self, hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Rows start:stop of hidden (1, R, H) through the model's own head code -> logits (r, V), or of a part."""
        self._head_start = start
        self._lifted.decoder.show(hidden[:, start:stop])
        logits: torch.Tensor = self._lifted.model(input_ids=self._row.ids[:, :1], use_cache=False).logits[0]
        return logits

    def _blocks(self, hidden: torch.Tensor) -> Iterator[LogitsBlock]:
        """Each part of the head is lent once, and all rows (1, R, H) go through it, a few at a time."""
        for part in range(len(self._lifted.layers), len(self.plan.slices)):
            (source, *_) = self._weights.parts[part].sources
            first_id, end = source.rows or (0, int(self._lifted.model.config.vocab_size))
            at_once = max(1, LOGITS_BYTES // (4 * (end - first_id)))
            self._weights.lend(part)
            self._head_part = part
            try:
                for start in range(0, hidden.shape[1], at_once):
                    yield LogitsBlock(start, first_id, self._show(hidden, start, start + at_once))
            finally:
                self._head_part = None
            self._weights.take_back(part)

    def _head_comes_by_parts(self, hidden: torch.Tensor) -> bool:
        """Whether the parts of the head go one by one: where they stream, or are several.

        Raises UnsupportedModel where they must and the model's code does not treat the logits of hidden (1, 1, H) each
        on its own.
        """
        parts = len(self.plan.slices) - len(self._lifted.layers)
        if parts == 1 or self._keeps_logits_apart(hidden):
            return parts > 1 or self._head_streams
        if self._head_streams:
            flag = "--host-memory" if self.plan.host is None else "--gpu-memory"
            raise UnsupportedModel(
                f"{self._lifted.model.config.model_type} does more to its logits than a head that comes in {parts} "
                f"parts allows; raise {flag} until the head stays in memory"
            )
        return False

    def _keeps_logits_apart(self, hidden: torch.Tensor) -> bool:
        """Whether the model's own code makes of a logit what it is whichever others stand beside it."""
        config = self._lifted.model.config
        whole = torch.linspace(-40, 40, config.vocab_size, device=self.device, dtype=hidden.dtype)[None, None]
        halves = whole.split(-(-config.vocab_size // 2), dim=-1)
        try:
            answers = [self._answered(hidden, logits) for logits in (whole, *halves)]
        except (RuntimeError, IndexError):
            answers = []
        return bool(answers) and torch.equal(answers[0], torch.cat(answers[1:], dim=-1))

    def _answered(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What the model's own code makes of logits (1, 1, v), as if its head had given them -> (1, v)."""
        self._head_answer = logits
        try:
            return self._show(hidden, 0, 1)
        finally:
            self._head_answer = None

    @property
    def _head_streams(self) -> bool:
        return any(part.streamed_bytes for part in self.plan.slices[len(self._lifted.layers) :])

    def _let_head_pass(self) -> None:
        """No row wants logits, but the disk lane, which goes round for ever, has the head next."""
        for part in range(len(self._lifted.layers), len(self.plan.slices)):
            self._weights.lend(part)
            self._weights.take_back(part)

    def _forget_first_row(self, row: torch.Tensor) -> None:
        """A model that scales or adds to its embeddings keeps the first row alive for nothing: let its memory go."""
        if row.untyped_storage().data_ptr() != self._first_row.untyped_storage().data_ptr():
            self._first_row.untyped_storage().resize_(0)


def _nothing(*_: Any) -> None:
    """Nobody listens."""
