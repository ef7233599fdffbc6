"""The flags that say how the next token is drawn. What is not given follows the model's generation_config.json."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import typer

from windlass.cli.form_flags import FormFlags
from windlass.cli.numbers import counting, real, whole
from windlass.errors import UsageError
from windlass.facts.sampling_params import SamplingParams

_PANEL = "Sampling"
_FORM = tuple(field.name for field in fields(FormFlags))


@dataclass(frozen=True, slots=True)
class SamplingFlags(FormFlags):
    """None is "as the model has it"; names are those of SamplingParams."""

    max_tokens: Annotated[
        int, typer.Option(parser=counting, metavar="N", help="Most tokens to generate.", rich_help_panel=_PANEL)
    ] = 128
    temperature: Annotated[
        float | None,
        typer.Option(parser=real, metavar="T", help="0 takes the likeliest token.", rich_help_panel=_PANEL),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="P", help="Draw from the likeliest tokens that sum to P.", rich_help_panel=_PANEL
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="K", help="Draw from the K likeliest tokens.", rich_help_panel=_PANEL),
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="P", help="Leave out tokens below P times the likeliest.", rich_help_panel=_PANEL
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="X", help="Above 1: what was said, prompt included, is less likely to come again.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="X", help="Off the logit of a token that the answer holds; from -2 to 2.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            parser=real, metavar="X", help="The same for each time that the answer holds it; from -2 to 2.",
            rich_help_panel=_PANEL,
        ),
    ] = None  # fmt: skip
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be given again.", rich_help_panel=_PANEL),
    ] = None

    def __post_init__(self) -> None:
        """What makes no sense is refused here, before torch is imported or a model fetched.

        Raises UsageError, and StorageError for a schema that cannot be read.
        """
        self.read_form()
        params = self.applied_to(SamplingParams())
        if self.temperature is None or not params.is_greedy:
            return
        for flag, value in (("--top-p", self.top_p), ("--top-k", self.top_k), ("--min-p", self.min_p)):
            if value is not None:
                raise UsageError(
                    f"--temperature {self.temperature:g} always takes the likeliest token, so {flag} {value:g} has no "
                    f"effect; leave one of them out"
                )

    @property
    def asks_for_length(self) -> bool:
        """Whether --max-tokens is other than its default, which is a guess and may be cut without a word."""
        return self.max_tokens != type(self)().max_tokens

    def given(self) -> dict[str, Any]:
        """What was said on the command line, for `dataclasses.replace`."""
        own = {name: value for name, value in asdict(self).items() if name not in _FORM and value not in (None, [])}
        form = self.answer_form()
        return own if form is None else own | {"structured_outputs": form}

    def applied_to(self, defaults: SamplingParams) -> SamplingParams:
        """The model's own parameters with what was said on the command line. Raises UsageError."""
        return replace(defaults, **self.given())
