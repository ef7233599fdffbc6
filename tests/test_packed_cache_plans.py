"""What a plan makes of packed keys and values: every byte is in the bill, and smaller pages make larger blocks."""

import json
from dataclasses import replace

import pytest

from planned_models import beside_host, decoder, demands
from windlass.errors import UsageError
from windlass.facts.cache_format import cache_format
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.plan_file import PlanFile, identity, parse_plan, refuse_another_model
from windlass.facts.workload import Workload
from windlass.planner.disk_cache import READ_BUFFERS, WRITES_BEHIND, disk_cache_memory, read_buffer_bytes
from windlass.planner.layer_work import slice_works
from windlass.planner.rule import Division, divided
from windlass.planner.search import search
from windlass.units import GIB, MIB

WORK = Workload(64, 900, 100)
PLAIN = decoder(layers=4, hidden=1024, heads=8, kv_heads=8, inner=2048)


def kept(name: str) -> ModelFacts:
    return replace(PLAIN, cache_format=cache_format(name))


@pytest.mark.parametrize(("name", "bits"), [("int8", 8.5), ("int4", 4.5)])
def test_every_byte_is_in_the_bill(name: str, bits: float) -> None:
    model, asked = kept(name), beside_host(2 * GIB, 4 * GIB, 8, 8 * GIB)
    plan = divided(model, WORK, asked, Division(8, host_pages=40, disk_pages=10))
    page = model.cache_page_bytes(plan.page_tokens)
    assert page == plan.page_tokens * 4 * (2 * 1024) * bits / 8
    unpacked = plan.page_tokens * model.cache_bytes_per_token
    assert plan.memory.cache == plan.device_pages * page + 8 * unpacked
    assert plan.host is not None and plan.host.cache == 40 * page
    buffers = READ_BUFFERS * read_buffer_bytes(model, plan.page_tokens)
    assert disk_cache_memory(model, plan.page_tokens, 8) == WRITES_BEHIND * page + buffers


def test_the_same_memory_holds_more_sequences() -> None:
    blocks = {name: search(kept(name), WORK, demands(400 * MIB)).block_size for name in ("auto", "int8", "int4")}
    assert blocks["auto"] < blocks["int8"] < blocks["int4"]


def test_attention_is_forecast_to_read_fewer_bytes() -> None:
    def read(name: str) -> int:
        plan = divided(kept(name), WORK, demands(2 * GIB), Division(8))
        return sum(work.attended_bytes for work in slice_works(kept(name), plan))

    assert read("int8") == read("auto") * 8.5 / 16 and read("int4") == read("auto") * 4.5 / 16


def int4_plan() -> Plan:
    return search(kept("int4"), WORK, demands(600 * MIB))


def test_a_plan_file_says_it() -> None:
    file = PlanFile(identity(kept("int4")), int4_plan())
    again = parse_plan(json.loads(json.dumps(file.as_dict())))
    assert again == file and again.plan.kv_cache_dtype == "int4"
    refuse_another_model(file, kept("int4"))
    with pytest.raises(UsageError, match="keys and values in int4, not auto"):
        refuse_another_model(file, kept("auto"))


def test_a_plan_file_that_is_older_keeps_them_as_they_are_computed() -> None:
    found = json.loads(json.dumps(PlanFile(identity(PLAIN), search(PLAIN, WORK, demands(600 * MIB))).as_dict()))
    del found["plan"]["kv_cache_dtype"]
    assert parse_plan(found).plan.kv_cache_dtype == "auto"


def test_a_format_that_does_not_exist() -> None:
    found = json.loads(json.dumps(PlanFile(identity(PLAIN), int4_plan()).as_dict()))
    found["plan"]["kv_cache_dtype"] = "int3"
    with pytest.raises(UsageError, match="kv_cache_dtype is 'int3', it must be one of auto, int8, int4"):
        parse_plan(found)
    with pytest.raises(UsageError, match="kv_cache_dtype='fp8' is not known; choose one of auto, int8, int4"):
        cache_format("fp8")
