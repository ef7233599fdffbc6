"""The recipe of the model in the box gives the same weights each time, killed on the way or not."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

DEV = Path(__file__).resolve().parent.parent / "dev"
SPEECH = "KING {n}:\nSpeech number {n} of many, and no longer.\n\n"
TEXT = "".join(SPEECH.format(n=n) for n in range(150))


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEV))
    return importlib.import_module("train_packaged_model")


@pytest.fixture
def weights_of(training: ModuleType) -> Callable[[Path], dict[str, torch.Tensor]]:
    recipe = training.Recipe(
        steps=6, evaluate_every=2, vocabulary=300, width=32, feed_forward=48, layers=1, heads=2, key_heads=1,
        context=16, rows=4, warm_up=2, rate=1e-2,
    )  # fmt: skip

    def run(folder: Path) -> dict[str, torch.Tensor]:
        training.train(TEXT, recipe, folder)
        weights: dict[str, torch.Tensor] = torch.load(folder / "last.pt")["model"]
        return weights

    return run


def test_a_killed_run_goes_on_to_the_same_weights(
    training: ModuleType,
    weights_of: Callable[[Path], dict[str, torch.Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    straight = weights_of(tmp_path / "straight")
    step_at = training.train_step

    def killed(model: object, optimizer: object, rows: object, step: int, recipe: object) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return float(step_at(model, optimizer, rows, step, recipe))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "train_step", killed)
        weights_of(tmp_path / "killed")
    resumed = weights_of(tmp_path / "killed")
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_the_held_out_tail_is_a_tenth_and_begins_with_a_speech(training: ModuleType) -> None:
    learned, held_out = training.split(TEXT)
    assert learned + held_out == TEXT
    assert held_out.startswith("KING ")
    assert len(held_out) == pytest.approx(0.1 * len(TEXT), abs=len(SPEECH))


def test_rows_begin_where_lines_do_and_ask_for_what_follows(training: ModuleType) -> None:
    tokenizer = training.trained_tokenizer(TEXT, training.Recipe(vocabulary=300))
    tokens = training.encoded(tokenizer, TEXT)
    newline = int(training.encoded(tokenizer, "\n")[0])
    inputs, wanted = training.Rows(tokens, newline, context=16).draw(8)
    assert inputs[:, 0].tolist() == [tokenizer.bos_token_id] * 8
    assert torch.equal(inputs[:, 1:], wanted[:, :-1])
    starts = [tokenizer.decode(row) for row in wanted]
    assert all(("\n" + start) in TEXT for start in starts)
    assert all(start.startswith("KING") for start in starts[1::2])
