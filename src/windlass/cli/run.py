"""`windlass run`: one prompt, the answer as it comes."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from windlass.cli.answer_json import answer_dict
from windlass.cli.answer_length import within_the_model
from windlass.cli.boxed_model import model_and_prompt
from windlass.cli.budget_flags import BudgetFlags, MaybeModelName
from windlass.cli.display import Display, display
from windlass.cli.input_text import read_input
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.timeline_flags import TimelineFlags
from windlass.errors import UsageError
from windlass.facts.completion import RequestOutput

EXAMPLES = (
    'windlass run "Once upon a time"',
    'windlass run ./model "Once upon a time" --host-memory 4GiB',
    'windlass run org/name "Why is the sky blue?" --chat --temperature 0',
    "cat question.txt | windlass run ./model - --json --quiet",
)

_PANEL = "Prompt"


def run(
    sampling: SamplingFlags,
    output: OutputFlags,
    budget: BudgetFlags,
    timeline: TimelineFlags,
    first: MaybeModelName = None,
    second: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The text to go on from; - reads standard input.", show_default=False),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask as a user, through the model's chat template.", rich_help_panel=_PANEL)
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message; implies --chat.", rich_help_panel=_PANEL)
    ] = None,
) -> None:
    """Answer one prompt, streaming the text as it is made.

    One argument alone is the prompt for the model in the box, unless it is a folder or a GGUF file, or looks like
    org/name.
    """
    model, text = model_and_prompt(first, second)
    if text == "-":
        text = read_input()
    if not text:
        raise UsageError('the prompt is empty; write at least one character, as in "Once upon a time"')
    with (
        display(output.quiet) as screen,
        timeline.recording(model, screen) as trace,
        opened(model, budget, screen.on_progress, trace) as llm,
    ):
        params = sampling.applied_to(llm.default_sampling_params)
        tokens = _templated(llm, text, system) if chat or system is not None else llm.tokenizer.encode(text)
        params = within_the_model(params, len(tokens), llm.opened.facts.max_model_len, sampling.asks_for_length)
        answers = llm.stream({"prompt_token_ids": tokens}, params)
        if output.json:
            _write_json(answers, llm, {"model": model, "prompt": text}, screen)
        else:
            _write_text(answers, llm, screen)


def _write_text(answers: Iterator[RequestOutput], llm: Any, screen: Display) -> None:
    """Streams the text to standard output, the report to standard error. Bars would be drawn through the text."""
    shares_terminal, written = sys.stdout.isatty(), 0
    try:
        for answer in answers:
            if shares_terminal:
                screen.close()
            text = answer.outputs[0].text
            sys.stdout.write(text[written:])
            sys.stdout.flush()
            written = len(text)
    finally:
        screen.close()
        sys.stdout.write("\n" if written else "")
    screen.say(llm.plan.lines() + llm.report.lines())


def _write_json(answers: Iterator[RequestOutput], llm: Any, asked: dict[str, object], screen: Display) -> None:
    """One object at the end; after Ctrl-C it holds what there was, with no finish reason."""
    last: RequestOutput | None = None
    try:
        for answer in answers:
            last = answer
    finally:
        screen.close()
        if last is not None:
            sys.stdout.write(json.dumps(asked | answer_dict(last, llm.report)) + "\n")


def _templated(llm: Any, text: str, system: str | None) -> list[int]:
    """The prompt's token ids as the model's chat template writes them."""
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    tokens: list[int] = llm.tokenizer.apply_chat_template(messages)
    return tokens
