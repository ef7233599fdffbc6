"""GGUF files on a hub: the one that is meant is fetched, alone, and found again without the hub."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gguf_models import gguf_beside
from hub_server import NAME, serve
from windlass.engine.llm import LLM
from windlass.errors import ModelNotFound, UsageError
from windlass.facts.sampling_params import SamplingParams
from windlass.jobs.model_description import describe_model
from windlass.model.hub import model_folder
from windlass.model.hub_gguf import HubGguf, gguf_files, hub_gguf

FILES = (
    "README.md",
    "tiny-Q4_K_M.gguf",
    "tiny.Q8_0.gguf",
    "BF16/tiny-BF16-00001-of-00002.gguf",
    "BF16/tiny-BF16-00002-of-00002.gguf",
    "mmproj-tiny-F16.gguf",
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    for served in serve(tmp_path, monkeypatch):
        served.repository.files = {name: name.encode() for name in FILES}
        yield served


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("org/m:Q4_K_M", HubGguf("org/m", kind="Q4_K_M")),
        ("org/m/a.gguf", HubGguf("org/m", file="a.gguf")),
        ("org/m/BF16/a-00001-of-00002.gguf", HubGguf("org/m", file="BF16/a-00001-of-00002.gguf")),
        ("org/m", None),
        ("m.gguf", None),
        ("./org/m/a.gguf", None),
        (Path("org/m/a.gguf"), None),
    ],
)
def test_what_a_name_means(name: str | Path, meant: HubGguf | None) -> None:
    assert hub_gguf(name) == meant


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (f"{NAME}:Q4_K_M", ["tiny-Q4_K_M.gguf"]),
        (f"{NAME}:q8_0", ["tiny.Q8_0.gguf"]),
        (f"{NAME}:BF16", ["BF16/tiny-BF16-00001-of-00002.gguf", "BF16/tiny-BF16-00002-of-00002.gguf"]),
        (f"{NAME}/tiny.Q8_0.gguf", ["tiny.Q8_0.gguf"]),
    ],
)
def test_only_the_files_that_are_meant_are_fetched(name: str, files: list[str], hub: SimpleNamespace) -> None:
    found = model_folder(name, None)
    assert found.read_bytes() == files[0].encode() and str(found).endswith(files[0])
    assert sorted(hub.repository.gets) == files
    hub.stop()
    assert model_folder(name, None) == found


@pytest.mark.parametrize("name", [f"{NAME}:Q5_0", NAME, f"{NAME}/other.gguf"])
def test_what_there_is_is_said_where_none_is_meant(name: str, hub: SimpleNamespace) -> None:
    with pytest.raises(ModelNotFound, match=rf"it has BF16, Q4_K_M, Q8_0: write {NAME}:BF16"):
        model_folder(name, None)
    assert not hub.repository.gets


def test_the_only_model_of_a_repository_needs_no_name() -> None:
    assert gguf_files(HubGguf("org/m"), ["config.json", "m.gguf", "mmproj.gguf"]) == ["m.gguf"]


def test_a_fetched_file_runs(hub: SimpleNamespace, tmp_path: Path) -> None:
    file = gguf_beside(tmp_path, "llama", num_hidden_layers=1)
    hub.repository.files = {"tiny-Q8_0.gguf": file.read_bytes()}
    prompt, params = {"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=4, temperature=0.0)
    tokens = []
    for model in (file, f"{NAME}:Q8_0"):
        with LLM(model) as llm:
            tokens.append(llm.generate(prompt, params)[0].outputs[0].token_ids)
    assert tokens[0] == tokens[1]


def test_a_plan_needs_the_file() -> None:
    with pytest.raises(UsageError, match="only one that is on this machine can be planned for; fetch it"):
        describe_model(f"{NAME}:Q8_0")


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no file .*/m\.gguf; check the path"):
        model_folder(str(tmp_path / "m.gguf"), None)
    with pytest.raises(ModelNotFound, match=r"there is no file .*/m\.gguf; check the path"):
        model_folder("m.gguf", None)
