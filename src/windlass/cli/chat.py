"""`windlass chat`: a conversation in the terminal, or line by line from a pipe."""

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from windlass.cli.answer_json import answer_dict
from windlass.cli.boxed_model import boxed_model
from windlass.cli.budget_flags import BudgetFlags, MaybeModelName
from windlass.cli.display import Screens
from windlass.cli.gentle_stop import GentleStop
from windlass.cli.input_text import input_lines
from windlass.cli.late import late
from windlass.cli.numbers import counting
from windlass.cli.opened import opened
from windlass.cli.output_flags import OutputFlags
from windlass.cli.sampling_flags import SamplingFlags
from windlass.cli.terminal_lines import TerminalLines
from windlass.errors import UsageError, WindlassError
from windlass.facts.chat_event import AnswerEnd, AnswerText, ChatEvent, Farewell, Notice
from windlass.facts.progress import Progress
from windlass.settings import api_key, cache_folder

EXAMPLES = (
    "windlass chat",
    'windlass chat org/name --system "Be brief" --host-memory 8GiB',
    "windlass chat ./model --quiet < questions.txt > answers.txt",
    "windlass chat --url http://127.0.0.1:8000",
)

_PROMPT, _GOES_ON = ">>> ", "... "
_WAIT = "\n(stopping after this token; Ctrl-C again stops at once, and the model is loaded again then)"


@dataclass(frozen=True, slots=True)
class ChatSamplingFlags(SamplingFlags):
    """As for one prompt, but an answer is not cut where a person would still listen."""

    max_tokens: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Most tokens of an answer.", rich_help_panel="Sampling")
    ] = 1024


def chat(
    sampling: ChatSamplingFlags,
    output: OutputFlags,
    budget: BudgetFlags,
    model: MaybeModelName = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message.", rich_help_panel="Prompt")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A server with OpenAI's interface answers, its first model where none is named.",
            rich_help_panel="Server",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Its key. Better WINDLASS_API_KEY: others see arguments.",
            rich_help_panel="Server",
        ),
    ] = None,
) -> None:
    """Talk with a model; it sees all that was said.

    /help lists the commands; three double quotes open and close a message of several lines; Ctrl-C stops an answer.
    From a pipe every line is a message, answered in turn, and an error ends it. With --json each answer is an object
    on a line.
    """
    if url is not None:
        _talk_to_server(url, key or api_key(), model, sampling, budget, output, system)
        return
    if key is not None:
        raise UsageError("--api-key is for a server; name one with --url http://127.0.0.1:8000")
    name = model or boxed_model()
    screens, stop = Screens(output.quiet), GentleStop()

    def on_progress(event: Progress) -> None:
        screens.on_progress(event)
        if stop.is_late:
            screens.say_once(_WAIT)

    with (
        closing(screens),
        opened(name, budget, on_progress) as llm,
    ):
        params = sampling.applied_to(llm.default_sampling_params)
        _talk(late("jobs.local_answerer").LocalAnswerer(llm, params), system, screens, stop, output)


def _talk_to_server(
    url: str,
    key: str | None,
    model: str | None,
    sampling: ChatSamplingFlags,
    budget: BudgetFlags,
    output: OutputFlags,
    system: str | None,
) -> None:
    """Nothing is loaded here, so no flag of the budget means anything."""
    given = [name for name, value in asdict(budget).items() if value != getattr(BudgetFlags(), name)]
    if given:
        flag = given[0].replace("_", "-")
        raise UsageError(
            f"--{flag} is for a model in this process, and --url has a server answer; leave one of them out"
        )
    with late("jobs.chat_server").ChatServer(url, key) as server, closing(Screens(output.quiet)) as screens:
        answerer = late("jobs.remote_answerer").RemoteAnswerer(server, model, sampling.given())
        _talk(answerer, system, screens, GentleStop(at_once=True), output)


def _talk(answerer: Any, system: str | None, screens: Screens, stop: GentleStop, output: OutputFlags) -> None:
    """To the end of the conversation."""
    talk = late("jobs.chat").Chat(answerer, system, lambda: stop.asked)
    screens.say(talk.open())
    screens.close()
    door = _Door(talk, answerer, screens, stop, output)
    door.show(talk.first_notice())
    if sys.stdin.isatty():
        door.converse()
    else:
        door.answer_lines()


class _Door:
    """Between a Chat and the streams: answers to standard output, all else to standard error."""

    def __init__(self, talk: Any, answerer: Any, screens: Screens, stop: GentleStop, output: OutputFlags) -> None:
        self._talk, self._answerer, self._screens, self._stop, self._output = talk, answerer, screens, stop, output
        self._written = False
        self._left = False

    def converse(self) -> None:
        """With a person at a terminal: errors are said and the conversation goes on."""
        if not self._output.quiet:
            _tell("say something; /help lists the commands, Ctrl-D leaves")
        with TerminalLines(cache_folder() / "chat_history") as lines:
            while not self._left:
                try:
                    line = lines.read(_GOES_ON if self._talk.is_open else _PROMPT)
                except (EOFError, KeyboardInterrupt) as error:
                    sys.stderr.write("\n")
                    begun = self._talk.is_open or (isinstance(error, KeyboardInterrupt) and lines.typed())
                    self._talk.drop()
                    self._left = not begun
                except WindlassError as error:
                    _tell(f"error: {error}")
                else:
                    self._take_turn(line)

    def answer_lines(self) -> None:
        """From a pipe: what follows an error would be asked in another conversation than was meant, so it ends."""
        for line in input_lines():
            self._run(line)
            if self._left:
                return
        self._talk.close()

    def _take_turn(self, line: str) -> None:
        try:
            with self._stop:
                self._run(line)
        except WindlassError as error:
            _tell(f"error: {error}")
        except KeyboardInterrupt:
            _tell("stopped")

    def _run(self, line: str) -> None:
        """What goes wrong is told on a line of its own, whoever tells it."""
        try:
            self._follow(line)
        except (WindlassError, KeyboardInterrupt):
            self._end_line()
            raise

    def _follow(self, line: str) -> None:
        self._screens.begin()
        try:
            with closing(self._talk.take(line)) as events:
                for event in events:
                    self.show(event)
        finally:
            self._screens.close()

    def show(self, event: ChatEvent) -> None:
        """Writes an event where it belongs."""
        match event:
            case AnswerText(text) if not self._output.json:
                self._write(text)
            case AnswerEnd():
                self._end_answer(event)
            case Notice(lines, hint):
                if lines and not (hint and self._output.quiet):
                    _tell("\n".join(f"({line})" if hint else line for line in lines))
            case Farewell():
                self._left = True

    def _write(self, text: str) -> None:
        if sys.stdout.isatty():
            # Bars would be drawn through the text.
            self._screens.close()
        sys.stdout.write(text)
        sys.stdout.flush()
        self._written = self._written or bool(text)

    def _end_answer(self, event: AnswerEnd) -> None:
        self._screens.close()
        self._end_line()
        if self._output.json and event.output is not None:
            row = {"prompt": event.question} | answer_dict(event.output, self._answerer.report)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
        if event.stopped and not sys.stdin.isatty():
            raise KeyboardInterrupt

    def _end_line(self) -> None:
        """After an answer the cursor stands at the beginning of a line, with a free one above on a terminal."""
        if self._written:
            sys.stdout.write("\n\n" if sys.stdout.isatty() else "\n")
            sys.stdout.flush()
        self._written = False


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
