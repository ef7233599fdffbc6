"""What form an answer must have, in vLLM's spelling: a JSON schema, a regular expression, one of some texts, a grammar.

The form is a fact about a request. Whether a grammar can be made of it for a model is found when the request is
admitted (engine/grammars.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, Literal

from windlass.errors import UsageError
from windlass.facts.sampling_values import require_bool
from windlass.facts.schema_bounds import MOST_STEPS, check_characters, read_schema

Kind = Literal["json", "regex", "choice", "grammar", "json_object"]
KINDS: tuple[Kind, ...] = ("json", "regex", "choice", "grammar", "json_object")
_NAMES = (
    *KINDS, "disable_any_whitespace", "whitespace_pattern", "disable_fallback", "disable_additional_properties",
    "structural_tag",
)  # fmt: skip

# Between two tokens of JSON a model may write a space, or begin a line and indent it. Without a limit some models write
# white space until they are cut.
SPACE_BETWEEN = r" |\n[ \t]{0,8}"


@dataclass(frozen=True, slots=True, eq=False)
class StructuredOutputsParams:
    """Exactly one of `json`, `regex`, `choice`, `grammar` and `json_object` is given. Raises UsageError otherwise.

    json: a JSON schema, as a mapping or as text; members of objects come in its order. regex: the whole answer, in
    the syntax of Rust's regex crate. choice: the answer is one of these texts. grammar: Lark or GBNF.
    json_object: any JSON object. disable_any_whitespace: JSON without white space between its tokens.
    whitespace_pattern: a regular expression for that white space. What follows is taken where it asks for nothing.

    Forms are equal when they mean the same.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    whitespace_pattern: str | None = None
    disable_fallback: InitVar[object] = None
    disable_additional_properties: InitVar[object] = None
    structural_tag: InitVar[object] = None

    def __post_init__(
        self, disable_fallback: object, disable_additional_properties: object, structural_tag: object
    ) -> None:
        if disable_additional_properties not in (None, False):
            raise UsageError(
                'disable_additional_properties does not exist here; write "additionalProperties": false into the schema'
            )
        if structural_tag is not None:
            raise UsageError("structural_tag does not exist here; write what may come as a grammar")
        given = [name for name in KINDS if getattr(self, name) is not None and getattr(self, name) is not False]
        if len(given) != 1:
            raise UsageError(
                f"structured outputs take exactly one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}; "
                "leave the others out"
            )
        require_bool("disable_any_whitespace", self.disable_any_whitespace)
        self._check_space()
        match self.kind:
            case "json":
                object.__setattr__(self, "json", read_schema("json", self.json))
            case "choice":
                object.__setattr__(self, "choice", _read_choices(self.choice))
            case "json_object":
                require_bool("json_object", self.json_object)
            case "grammar":
                _check_grammar(self.grammar)
            case "regex":
                _check_text("regex", self.regex)

    @property
    def kind(self) -> Kind:
        """Which of them is given."""
        return next(name for name in KINDS if getattr(self, name) is not None and getattr(self, name) is not False)

    @property
    def form(self) -> str | tuple[str, ...]:
        """What is given: the text of a schema, of an expression or of a grammar, or the choices."""
        if self.kind == "json_object":
            return '{"type": "object"}'
        form: str | tuple[str, ...] = getattr(self, self.kind)
        return form

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON."""
        return self.kind in ("json", "json_object")

    @property
    def space(self) -> str:
        """What may stand between two tokens of JSON, as a regular expression; empty where nothing may."""
        return "" if self.disable_any_whitespace else self.whitespace_pattern or SPACE_BETWEEN

    def as_dict(self) -> dict[str, object]:
        """As JSON holds it, by the names of the fields; `StructuredOutputsParams(**...)` reads it again."""
        form = True if self.kind == "json_object" else self.form
        said: dict[str, object] = {self.kind: list(form) if isinstance(form, tuple) else form}
        if self.disable_any_whitespace:
            said["disable_any_whitespace"] = True
        if self.whitespace_pattern is not None:
            said["whitespace_pattern"] = self.whitespace_pattern
        return said

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructuredOutputsParams) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        return self.kind, self.form, self.space if self.is_json else ""

    def _check_space(self) -> None:
        if self.whitespace_pattern is None:
            return
        _check_text("whitespace_pattern", self.whitespace_pattern)
        if self.disable_any_whitespace:
            raise UsageError("whitespace_pattern allows what disable_any_whitespace forbids; leave one of them out")


def read_structured_outputs(value: object) -> StructuredOutputsParams | None:
    """Parameters, or a mapping by the names of their fields, as it comes in a body. Raises UsageError."""
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(
            f"structured_outputs must be a StructuredOutputsParams, got {value!r:.60} ({type(value).__name__}); write "
            "it as StructuredOutputsParams(json={...})"
        )
    for name in value:
        if name not in _NAMES:
            raise UsageError(f"structured_outputs has no {name!r:.60}; it takes one of {', '.join(KINDS)}")
    return StructuredOutputsParams(**value)


def _check_grammar(grammar: object) -> None:
    """Rules may lead to rules, along which the compiler recurses as along the references of a schema."""
    _check_text("grammar", grammar)
    text = str(grammar)
    rules = text.replace("::=", ":").count(":")
    if rules > MOST_STEPS:
        raise UsageError(f"grammar has {rules} rules, counted by their colons, and at most {MOST_STEPS} are read")
    for word in ("%json", "%llguidance"):
        if word in text:
            raise UsageError(f"grammar holds {word}, which is not read inside a grammar; give a schema as json=...")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise UsageError(f"{name} must be a text, got {text!r:.60}; write it as {name}='[a-z]+'")
    check_characters(name, text)


def _read_choices(choices: object) -> tuple[str, ...]:
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise UsageError(f"choice must be a list of texts, got {choices!r:.60}; write it as choice=['yes', 'no']")
    for place, text in enumerate(choices):
        if not isinstance(text, str) or not text:
            raise UsageError(f"choice holds {text!r:.60} at {place}, which is no text; each must have a character")
    check_characters("choice", "".join(choices))
    return tuple(dict.fromkeys(choices))
