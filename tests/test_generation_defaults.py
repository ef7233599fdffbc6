"""End ids and sampling defaults as a checkpoint's files say them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from windlass.engine.llm import LLM
from windlass.errors import CheckpointError
from windlass.facts.generation_defaults import GenerationDefaults
from windlass.facts.sampling_params import SamplingParams
from windlass.model.generation_defaults import read_generation_defaults
from windlass.packaged_model import packaged_model_folder


def read(folder: Path, said: Any = None, config: dict[str, Any] | None = None) -> GenerationDefaults:
    if said is not None:
        (folder / "generation_config.json").write_text(said if isinstance(said, str) else json.dumps(said))
    return read_generation_defaults(folder, config or {})


def test_end_ids_may_be_one_or_a_list(tmp_path: Path) -> None:
    assert read(tmp_path, {"eos_token_id": 2}).eos_token_ids == (2,)
    assert read(tmp_path, {"eos_token_id": [128001, 128009]}).eos_token_ids == (128001, 128009)


def test_generation_config_goes_before_config_and_config_before_its_text_config(tmp_path: Path) -> None:
    config = {"eos_token_id": 3, "text_config": {"eos_token_id": 4, "bos_token_id": 5}}
    assert read(tmp_path, {"eos_token_id": 2}, config).eos_token_ids == (2,)
    without = read(tmp_path, {"eos_token_id": None}, config)
    assert (without.eos_token_ids, without.bos_token_id) == ((3,), 5)
    assert read(tmp_path, {}, {"text_config": config["text_config"]}).eos_token_ids == (4,)


def test_a_checkpoint_that_says_nothing_has_no_end_and_is_greedy(tmp_path: Path) -> None:
    assert read(tmp_path) == GenerationDefaults((), None, SamplingParams(temperature=0.0))


def test_where_no_file_names_an_end_the_tokenizers_is_taken(tmp_path: Path) -> None:
    said = read_generation_defaults(tmp_path, {"eos_token_id": 3}, (9,))
    silent = [read_generation_defaults(tmp_path, config, (9,)) for config in ({}, {"eos_token_id": None})]
    assert (said.eos_token_ids, [each.eos_token_ids for each in silent]) == ((3,), [(9,), (9,)])


def test_an_opened_model_ends_where_its_tokenizer_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.engine.proven_files.require_proven", lambda config, unproven: None)
    folder = shutil.copytree(packaged_model_folder(), tmp_path / "model")
    with LLM(folder) as llm:
        (end,) = llm.tokenizer.eos_token_ids
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    with LLM(folder) as llm:
        assert llm.opened.defaults.eos_token_ids == (end,)


def test_sampling_is_taken_over_only_where_the_checkpoint_samples(tmp_path: Path) -> None:
    said = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "max_new_tokens": 99}
    assert read(tmp_path, said).sampling_params == SamplingParams(temperature=0.0, max_tokens=99)
    assert read(tmp_path, said | {"do_sample": True}).sampling_params == SamplingParams(
        temperature=0.6, top_p=0.9, top_k=20, min_p=0.05, max_tokens=99
    )


def test_a_file_that_transformers_wrote_is_understood(tmp_path: Path) -> None:
    GenerationConfig(do_sample=True, temperature=0.7, top_k=40, eos_token_id=[7, 8], bos_token_id=1).save_pretrained(
        tmp_path
    )
    defaults = read(tmp_path)
    assert (defaults.eos_token_ids, defaults.bos_token_id) == ((7, 8), 1)
    assert (defaults.sampling_params.temperature, defaults.sampling_params.top_k) == (0.7, 40)
    assert defaults.unheeded == ()


def test_settings_that_change_tokens_and_are_not_applied_are_named(tmp_path: Path) -> None:
    said = {"encoder_repetition_penalty": 1.05, "num_beams": 1, "no_repeat_ngram_size": 3}
    assert read(tmp_path, said).unheeded == ("encoder_repetition_penalty=1.05", "no_repeat_ngram_size=3")


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_penalty_for_repetition_counts_whether_it_samples_or_not(tmp_path: Path, do_sample: bool) -> None:
    defaults = read(tmp_path, {"repetition_penalty": 1.05, "do_sample": do_sample})
    assert (defaults.sampling_params.repetition_penalty, defaults.unheeded) == (1.05, ())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", r"generation_config\.json cannot be read"),
        ("[1]", "holds a list, not an object"),
        ({"eos_token_id": "2"}, "eos_token_id is '2'"),
        ({"eos_token_id": [2, None]}, r"eos_token_id is \[2, None\]"),
        ({"do_sample": True, "temperature": -1}, r"generation_config\.json: temperature must be 0"),
        ({"repetition_penalty": 0}, r"generation_config\.json: repetition_penalty must be above 0, got 0"),
        ({"max_new_tokens": 0}, "max_tokens must be 1 or more, got 0"),
    ],
)
def test_a_malformed_file_is_a_checkpoint_error_that_names_it(tmp_path: Path, said: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, said)


def test_the_trained_model_ends_at_its_own_id(shared: Path) -> None:
    folder = shared / "models" / "stories-260k"
    config = json.loads((folder / "config.json").read_text())
    assert read_generation_defaults(folder, config).eos_token_ids == (2,)
