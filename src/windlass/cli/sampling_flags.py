"""The flags that say how the next token is drawn. What is not given follows the model's generation_config.json."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

from windlass.facts.sampling_params import SamplingParams

_PANEL = "Sampling"


@dataclass(frozen=True, slots=True)
class SamplingFlags:
    """None is "as the model has it"; names are those of SamplingParams."""

    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most tokens to generate.", rich_help_panel=_PANEL)
    ] = 128
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="0 takes the likeliest token.", rich_help_panel=_PANEL)
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Draw from the likeliest tokens that sum to P.", rich_help_panel=_PANEL),
    ] = None
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Draw from the K likeliest tokens.", rich_help_panel=_PANEL)
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Leave out tokens below P times the likeliest.", rich_help_panel=_PANEL),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be given again.", rich_help_panel=_PANEL),
    ] = None

    def given(self) -> dict[str, object]:
        """What was said on the command line, for `dataclasses.replace`."""
        return {name: value for name, value in asdict(self).items() if value not in (None, [])}

    def applied_to(self, defaults: SamplingParams) -> SamplingParams:
        """The model's own parameters with what was said on the command line. Raises UsageError."""
        return replace(defaults, **self.given())  # type: ignore[arg-type]
