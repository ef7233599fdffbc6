"""Keys and values on disk: the same tokens, nothing left behind, and only where there is no other way."""

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import ARCHITECTURES, greedy_answers, random_model, random_prompts, save
from placements import PAGE_TOKENS
from test_search import WORK, demands, model
from windlass.engine.llm import LLM
from windlass.errors import BudgetError, StorageError, UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.memory.page_file import PageFile
from windlass.planner.search import search
from windlass.units import GIB, MIB

LENGTHS, TOKENS = (5, 17, 11, 40), 20
GREEDY = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)


def answers(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], GREEDY)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_with_nearly_all_of_its_cache_on_disk(architecture: str, tmp_path: Path) -> None:
    """On the host alone; prompts in pieces, pages filled and written while decoding, sequences that leave early."""
    reference = random_model(architecture)
    prompts = random_prompts(*LENGTHS)
    expected = greedy_answers(reference, prompts, TOKENS)
    folder = save(reference, tmp_path / "model")
    offload = tmp_path / "offload"
    offload.mkdir()
    with LLM(folder, device="cpu", micro_batch_tokens=7) as llm:
        plan = llm.prepare(Workload(2, max(LENGTHS), TOKENS))
    plan = replace(plan, page_tokens=PAGE_TOKENS, num_pages=16, disk_pages=15, block_size=2, pass_tokens=19)
    with LLM(folder, device="cpu", plan=plan, offload_dir=offload) as llm:
        assert answers(llm, prompts) == expected
        assert llm._engine is not None and llm._engine.disk_cache is not None
        assert llm._engine.disk_cache.file.bytes_read > 0
        again = answers(llm, prompts)
    assert again == expected
    assert list(offload.iterdir()) == [], "nothing is left"


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_answers_that_share_a_prompt_get_copies_of_its_pages_on_disk(architecture: str, tmp_path: Path) -> None:
    """phi3 may read its prompt again, so every answer has copies of all its pages."""
    folder = save(random_model(architecture), tmp_path)
    prompts = [{"prompt_token_ids": prompt} for prompt in random_prompts(5, 35)]
    params = SamplingParams(max_tokens=16, temperature=1.0, seed=7, n=3, ignore_eos=True)
    with LLM(folder, device="cpu") as llm:
        plan = llm.prepare(Workload(6, 35, 16))
        wanted = [[each.token_ids for each in output.outputs] for output in llm.generate(prompts, params)]
    plan = replace(plan, page_tokens=PAGE_TOKENS, num_pages=48, disk_pages=46, block_size=6)
    with LLM(folder, device="cpu", plan=plan, offload_dir=tmp_path) as llm:
        assert [[each.token_ids for each in output.outputs] for output in llm.generate(prompts, params)] == wanted


def test_without_a_folder_a_cache_that_does_not_fit_is_refused_and_says_that_one_would_do() -> None:
    with pytest.raises(BudgetError, match="--offload-dir"):
        search(model(), replace(WORK, prompt_len=60000), demands(400 * MIB, block_size=4))
    with pytest.raises(BudgetError, match="to run with 4") as refused:
        search(model(), replace(WORK, prompt_len=60000), demands(200 * MIB, block_size=4))
    assert "--offload-dir" not in str(refused.value), "where it would not do either it is not named"


def test_with_a_folder_it_goes_there_as_far_as_it_must() -> None:
    work, asked = replace(WORK, prompt_len=60000), replace(demands(400 * MIB, block_size=4), offload=100 * GIB)
    plan = search(model(), work, asked)
    assert 0 < plan.disk_pages < plan.num_pages and plan.memory.spare >= 0
    fewer = replace(plan.memory, cache=plan.memory.cache + plan.memory.cache // plan.device_pages)
    assert fewer.spare < 0, "a page more would have fitted"
    assert search(model(), WORK, replace(demands(GIB), offload=100 * GIB)).disk_pages == 0


def test_a_folder_with_too_little_room_is_no_way_out() -> None:
    with pytest.raises(BudgetError):
        search(model(), replace(WORK, prompt_len=60000), replace(demands(400 * MIB, block_size=4), offload=MIB))


def test_a_page_file_keeps_what_is_written_and_has_no_name(tmp_path: Path) -> None:
    file = PageFile(tmp_path, 3 * 4096, direct=False)
    assert list(tmp_path.iterdir()) == []
    file.write(4096, memoryview(bytearray(b"x" * 4096))).result()
    target = bytearray(4096)
    file.read(4096, memoryview(target)).result()
    assert bytes(target) == b"x" * 4096
    file.close()


def test_a_disk_that_is_full_says_so_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"has .* free and .* are to go there: .* are missing"):
        PageFile(tmp_path, 1 << 60, direct=True)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        LLM(tmp_path, offload_dir=tmp_path / "nowhere")
