"""Any byte of a GGUF file's header may be another: the file is read, or refused in one line."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import pytest

from checkpoints import random_model, save
from gguf_models import write_gguf
from windlass.engine.opened_model import read_files
from windlass.errors import CheckpointError, ModelError, UnsupportedModel
from windlass.facts.gguf_header import read_gguf_header

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LLAMA", {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192}}),
    "phi3": ("PHI3", {"rope_parameters": LONGROPE | {"original_max_position_embeddings": 16}}),
    "mixtral": ("LLAMA", {}),
    "gemma3_text": ("GEMMA3", {"head_dim": 32}),
}


def bytewise(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(["a", "b", "ab", "<|end|>"])
    writer.add_token_types([NORMAL, NORMAL, NORMAL, CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(3)


def by_score(writer: gguf.GGUFWriter) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(place) for place in range(len(tokens))])
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * 3)
    writer.add_bos_token_id(1)


@pytest.mark.parametrize("architecture", MODELS)
def test_a_changed_header_is_read_or_refused_in_one_line(architecture: str, tmp_path: Path) -> None:
    kind, own = MODELS[architecture]
    model = random_model(architecture, **own)
    save(model, tmp_path / "dense")
    vocabulary = bytewise if architecture == "llama" else by_score
    file = write_gguf(tmp_path / "dense", model.config, kind, ("Q8_0",), vocabulary=vocabulary)
    read_files(file).tokenizer()
    content, end = file.read_bytes(), min(fact.offset for fact in read_gguf_header(file).tensors)
    draw, outcomes = random.Random(architecture), Counter[type]()
    for _ in range(120):
        changed = bytearray(content)
        changed[draw.randrange(end)] = draw.choice([0, 1, 128, 255, draw.randrange(256)])
        file.write_bytes(changed)
        try:
            files = read_files(file)
            files.tokenizer()
            outcomes[type(files)] += 1
        except ModelError as error:
            outcomes[type(error)] += 1
            assert str(tmp_path) in str(error) and "\n" not in str(error)
    assert len(outcomes) == 3 and outcomes[CheckpointError] > 30 and outcomes[UnsupportedModel] > 3
