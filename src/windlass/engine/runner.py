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
from windlass.engine.row import Pages, Row, RowSlice, RowSpan
from windlass.engine.trace import ComputeSpans
from windlass.engine.weights import Weights
from windlass.errors import DeviceError
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
        """One pass over the model. Yields logits (r, V), the spans that want logits in order, a few rows at a time."""
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
        yield from self._logits(hidden[:, row.wanted] if self._narrows_late else hidden)

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
        """hidden (1, r, H) -> logits (1, r, V), a part of the head after the other."""
        logits = []
        for part in range(len(self._lifted.layers), len(self.plan.slices)):
            self._weights.lend(part)
            step = Step(Op.COMPUTE, part, self._head_start, self._head_start + hidden.shape[1])
            with self.spans.span(step_name(self.plan, step)) if self.spans else _UNTIMED:
                logits.append(head(hidden))
            self._weights.take_back(part)
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=-1)

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

        def narrowed(leaf: Any) -> Any:
            if isinstance(leaf, DeferredTables):
                return leaf.resolve(self._row.positions[:, piece.start : piece.stop], piece.lengths)
            if isinstance(leaf, torch.Tensor) and leaf.ndim >= 2 and leaf.shape[:2] == (1, tokens):
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
        streamed = any(part.streamed_bytes for part in self.plan.slices[len(self._lifted.layers) :])
        at_once = rows if streamed else max(1, LOGITS_BYTES // (4 * self._lifted.model.config.vocab_size))
        for start in range(0, rows, at_once):
            self._head_start = start
            self._lifted.decoder.show(hidden[:, start : start + at_once])
            yield self._lifted.model(input_ids=self._row.ids[:, :1], use_cache=False).logits[0]

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
