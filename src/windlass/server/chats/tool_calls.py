"""Finds calls of tools in an answer as it grows, in the form of Qwen and Hermes:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Turin"}}
    </tool_call>

Text that may yet be the beginning of a call is held back. What stands in the marks and is no call is shown as it is.
"""

import json
from dataclasses import dataclass

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the JSON of an object."""

    name: str
    arguments: str


class ToolCallReader:
    """`most`: calls that are shown, None for any number; what comes after the last of them is dropped."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._held = ""
        self._inside = False
        self.found = 0

    def feed(self, text: str, ended: bool = False) -> list[str | ToolCall]:
        """Takes more of the answer; gives the text and the calls that are certain now. `ended`: there is no more."""
        self._held += text
        out: list[str | ToolCall] = []
        while self._step(out):
            pass
        if ended and self._held:
            rest, self._held = self._held, ""
            if self._inside:
                self._inside = False
                self._add_block(out, rest, rest.removeprefix(_OPEN))
            elif not (self.found and not rest.strip()):
                out.append(rest)
        return out if self._most is None else self._cut(out)

    def _step(self, out: list[str | ToolCall]) -> bool:
        """Moves past one mark; whether there may be another."""
        if self._inside:
            end = self._held.find(_CLOSE)
            if end < 0:
                return False
            block, self._held = self._held[: end + len(_CLOSE)], self._held[end + len(_CLOSE) :]
            self._inside = False
            self._add_block(out, block, block[len(_OPEN) : end])
            return True
        start = self._held.find(_OPEN)
        if start >= 0:
            self._show(out, self._held[:start].rstrip())
            self._held, self._inside = self._held[start:], True
            return True
        certain = len(self._held) - _beginning(self._held)
        shown = self._held[:certain].rstrip()
        self._show(out, shown)
        self._held = self._held[len(shown) :]
        return False

    def _show(self, out: list[str | ToolCall], text: str) -> None:
        if text:
            out.append(text)

    def _add_block(self, out: list[str | ToolCall], whole: str, inside: str) -> None:
        call = _call(inside)
        self.found += call is not None
        out.append(whole if call is None else call)

    def _cut(self, out: list[str | ToolCall]) -> list[str | ToolCall]:
        """Without what comes after the last call that is wanted."""
        assert self._most is not None
        kept: list[str | ToolCall] = []
        before = self.found - sum(isinstance(part, ToolCall) for part in out)
        for part in out:
            if before >= self._most:
                break
            kept.append(part)
            before += isinstance(part, ToolCall)
        self.found = min(self.found, self._most)
        return kept


def _beginning(text: str) -> int:
    """Length of the longest end of the text that the opening mark begins with."""
    for size in range(min(len(text), len(_OPEN) - 1), 0, -1):
        if _OPEN.startswith(text[-size:]):
            return size
    return 0


def _call(text: str) -> ToolCall | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return None
    arguments = told.get("arguments", told.get("parameters", {}))
    if isinstance(arguments, str):
        return ToolCall(told["name"], arguments)
    if not isinstance(arguments, dict):
        return None
    return ToolCall(told["name"], json.dumps(arguments, ensure_ascii=False))
