"""Reads the values of a quantization_config, which is foreign input."""

from collections.abc import Mapping

from windlass.errors import CheckpointError


def whole(place: str, settings: Mapping[str, object], names: tuple[str, ...], default: int) -> int:
    """The first of `names` that is set, a whole number. Raises CheckpointError for anything else."""
    for name in names:
        value = settings.get(name)
        if value is not None:
            if type(value) is not int:
                raise CheckpointError(
                    f"{place}: config.json has {name}={value!r} in its quantization_config, expected a whole number; "
                    "correct that value, or fetch the file again"
                )
            return value
    return default


def word(settings: Mapping[str, object], names: tuple[str, ...], default: str) -> str:
    """The first of `names` that is set, in small letters."""
    return next((str(settings[name]).lower() for name in names if settings.get(name) is not None), default)
