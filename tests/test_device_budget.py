"""Of a device's memory a budget counts what this process holds, not what others hold."""

from types import SimpleNamespace

import pytest
import torch

from windlass.engine.budgets import MOST_CONTEXT_BYTES, SHARE_OF_FREE, device_budget
from windlass.engine.target import Target
from windlass.units import GIB, MIB

TOTAL = 80 * GIB


def budget(monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, asked: int | None) -> tuple[int, int]:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, TOTAL))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    device = torch.device("cuda", 0)
    return device_budget(SimpleNamespace(target=Target(device), device=device), asked)


def test_alone_everything_that_is_taken_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert budget(monkeypatch, TOTAL - 500 * MIB, 0, 24 * GIB) == (24 * GIB, 500 * MIB)
    assert budget(monkeypatch, TOTAL - 500 * MIB, 0, 2 * TOTAL)[0] == TOTAL


def test_what_others_hold_lessens_what_there_is_and_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    free, reserved = 10 * GIB, 100 * MIB
    held = reserved + MOST_CONTEXT_BYTES
    assert budget(monkeypatch, free, reserved, 2 * GIB) == (2 * GIB, held)
    assert budget(monkeypatch, free, reserved, 24 * GIB) == (held + free, held)
    assert budget(monkeypatch, free, reserved, None) == (held + int(SHARE_OF_FREE * free), held)
