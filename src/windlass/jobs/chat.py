"""A conversation with a model: lines as a person types them in, events out. It neither reads nor writes a terminal."""

from collections.abc import Callable, Generator, Iterator

from windlass.errors import UsageError
from windlass.facts.chat_event import AnswerEnd, AnswerText, ChatEvent, Farewell, Notice
from windlass.facts.completion import RequestOutput
from windlass.facts.conversation import Conversation
from windlass.jobs.answerer import Answerer
from windlass.jobs.chat_command import Command, help_lines, parse_command
from windlass.jobs.conversation_file import read_conversation, write_conversation
from windlass.jobs.message_lines import MessageLines


class Chat:
    """`open` first, then `take` line after line. `stopped` is asked after every token whether to end the answer.

    Only what was answered, in part or whole, enters the conversation.
    """

    def __init__(
        self, answerer: Answerer, system: str | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.conversation = Conversation(system)
        self._answerer, self._stopped = answerer, stopped
        self._lines = MessageLines()
        self._context: int | None = 0

    def open(self) -> tuple[str, ...]:
        """Has whoever answers make ready; what is to be said of it. Raises WindlassError."""
        return self._answerer.open()

    def first_notice(self) -> Notice:
        """What a person should know before the first message."""
        return Notice(self._answerer.notices(), hint=True)

    @property
    def is_open(self) -> bool:
        """Whether a message was begun and more lines of it are to come."""
        return self._lines.is_open

    def drop(self) -> None:
        """Forgets a message that was begun."""
        self._lines.drop()

    def close(self) -> None:
        """No more lines will come. Raises UsageError for a message that was begun and not ended."""
        if self._lines.is_open:
            raise UsageError(
                f"the input ends inside a message that {self._lines.opened_by} keeps open, and it was not asked; end "
                f'it with """, or with a line that no backslash ends'
            )

    def take(self, line: str) -> Generator[ChatEvent, None, None]:
        """What comes of a line without its line end. Raises WindlassError; the conversation then is as it was."""
        if not self._lines.is_open and line.startswith("/"):
            yield from self._obey(parse_command(line))
            return
        message = self._lines.take(line)
        if message is not None and message.strip():
            yield from self._answer(message)

    def _answer(self, question: str) -> Iterator[ChatEvent]:
        """Streams the answer. However it ends, what was said of it stays."""
        said, output, stopped = "", None, False
        stream = self._answerer.ask(self.conversation, question)
        try:
            for output in stream:
                before, said = said, output.outputs[0].text
                yield AnswerText(said[len(before) :])
                if self._stopped() and not output.finished:
                    stopped = True
                    break
        except KeyboardInterrupt:
            stopped = True
        finally:
            stream.close()
            self._keep(question, said, output)
        yield AnswerEnd(question, output, stopped)
        yield from self._after(output, said, stopped)

    def _keep(self, question: str, said: str, output: RequestOutput | None) -> None:
        """An answer that was stopped before its first word takes its question with it."""
        if output is not None and (said or output.finished):
            self.conversation = self.conversation.answered(question, self._answerer.kept(output))
            self._context = self._answerer.tokens(output)

    def _after(self, output: RequestOutput | None, said: str, stopped: bool) -> Iterator[ChatEvent]:
        """Why an answer is shorter than it might be."""
        if stopped:
            yield Notice(
                ("stopped" if said else "stopped before a word was said; the message was taken back",), hint=True
            )
        elif output is not None and output.outputs[0].finish_reason == "length":
            yield Notice((self._answerer.why_cut(output),), hint=True)

    def _obey(self, command: Command) -> Iterator[ChatEvent]:
        match command.name:
            case "/system":
                yield self._set_system(command.argument or None)
            case "/save":
                path = write_conversation(command.argument, self.conversation)
                yield Notice((f"{len(self.conversation.messages)} messages kept in {path}",))
            case "/load":
                yield self._load(command.argument)
            case "/stats":
                yield Notice(self._stats())
            case "/clear":
                self.conversation, self._context = self.conversation.cleared(), 0
                kept = "" if self.conversation.system is None else "; the system message stays"
                yield Notice((f"the conversation begins anew{kept}",))
            case "/help":
                yield Notice(help_lines())
            case "/exit":
                yield Farewell()

    def _set_system(self, text: str | None) -> Notice:
        self.conversation = self.conversation.under(text)
        return Notice(("there is no system message" if text is None else "the system message is set",))

    def _load(self, name: str) -> Notice:
        self.conversation, self._context = read_conversation(name), None
        return Notice((f"{len(self.conversation.messages)} messages loaded from {name}",))

    def _stats(self) -> tuple[str, ...]:
        """The conversation beside the model's length, and what whoever answers knows of the run."""
        known = "not counted yet" if self._context is None else f"{self._context}"
        context = f"context  {self._answerer.context(known)}, {len(self.conversation.exchanges)} answer(s)"
        return (context, *self._answerer.stats())
