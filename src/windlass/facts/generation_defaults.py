"""How a checkpoint wants to be run when nobody says otherwise: its end ids and its sampling."""

from dataclasses import dataclass

from windlass.facts.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """What generation_config.json (or else config.json) says. Filled by model/generation_defaults.py.

    `sampling_params` is greedy unless the checkpoint asks for sampling, as in transformers. `unheeded` names settings
    of the file that change the tokens in transformers and that Windlass does not apply, as `name=value`.
    """

    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    sampling_params: SamplingParams
    unheeded: tuple[str, ...] = ()
