"""The schedule is a value: these are the properties that make executing it in order correct."""

from hypothesis import given
from hypothesis import strategies as st

from windlass.facts.plan import MemoryBill, Plan, Slice
from windlass.planner.schedule import Op, micro_batches, schedule

BILL = MemoryBill(budget=1, base=0, resident=0, ring=0, expert_ring=0, cache=0, row=0, activations=0, scratch=0)
SLICES = st.lists(
    st.builds(
        Slice,
        name=st.just("slice"),
        kind=st.just("layer"),
        resident_bytes=st.integers(0, 10),
        streamed_bytes=st.integers(0, 10),
        disk_bytes=st.integers(0, 10),
        buffer_bytes=st.just(4096),
        disk_buffer_bytes=st.just(4096),
    ),
    min_size=1,
    max_size=6,
).map(lambda layers: (*layers, Slice("head", "head", 0, 3, 3, 4096, 4096)))


def plan_of(slices: tuple[Slice, ...], micro_batch_tokens: int) -> Plan:
    return Plan("m", "cpu", "float32", 1, 1, micro_batch_tokens, 64, 1, slices, frozenset(), BILL)


@given(tokens=st.integers(1, 5000), limit=st.integers(1, 700))
def test_micro_batches_cover_the_row_once_evenly_and_within_the_limit(tokens: int, limit: int) -> None:
    ranges = micro_batches(plan_of((), limit), tokens)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(tokens))
    sizes = [stop - start for start, stop in ranges]
    assert max(sizes) <= limit and max(sizes) - min(sizes) <= 1


@given(slices=SLICES, tokens=st.integers(1, 300), limit=st.integers(1, 100))
def test_every_slice_is_read_if_it_streams_lent_computed_and_taken_back_in_that_order(
    slices: tuple[Slice, ...], tokens: int, limit: int
) -> None:
    made = schedule(plan_of(slices, limit), tokens, head_rows=2)
    assert [step for part in made.by_part for step in part] == list(made.steps)
    assert [step.part for step in made.steps] == sorted(step.part for step in made.steps), "layer-major"
    for index, (part, steps) in enumerate(zip(slices, made.by_part, strict=True)):
        operations = [step.op for step in steps]
        reads = [Op.READ] if part.disk_bytes else []
        computes = [Op.COMPUTE] * (len(operations) - len(reads) - 2)
        assert operations == [*reads, Op.LEND, *computes, Op.TAKE_BACK]
        assert all(step.part == index for step in steps)


@given(slices=SLICES, tokens=st.integers(1, 300), limit=st.integers(1, 100))
def test_each_layer_computes_every_row_and_the_head_only_the_rows_wanted(
    slices: tuple[Slice, ...], tokens: int, limit: int
) -> None:
    made = schedule(plan_of(slices, limit), tokens, head_rows=2)
    for part, steps in zip(slices, made.by_part, strict=True):
        rows = [row for step in steps if step.op is Op.COMPUTE for row in range(step.start, step.stop)]
        assert rows == list(range(2 if part.kind == "head" else tokens))


@given(slices=SLICES)
def test_the_disk_lane_reads_exactly_what_streams(slices: tuple[Slice, ...]) -> None:
    reads = schedule(plan_of(slices, 8), 20, head_rows=1).reads()
    assert [step.part for step in reads] == [index for index, part in enumerate(slices) if part.disk_bytes]
