"""Refusals of quantised weights that are not read: each names the format and the nearest thing that works."""

from pathlib import PurePath

from windlass.errors import UnsupportedModel

NEAREST = (
    "choose a checkpoint of it in AWQ (gemm), GPTQ, compressed-tensors, FP8 or MXFP4, or take the model's float16 or "
    "bfloat16 checkpoint and pack it once: windlass quantize MODEL --to int4 -o OUT"
)
# What else is to be known of a method.
REMARKS = {
    "bitsandbytes": "it packs 16-bit weights as they are loaded, and so does Windlass with --quantization int4: ",
    "auto-round": "where it was exported for AWQ or GPTQ, take that export: ",
}


def method_not_read(place: PurePath | str, method: str) -> UnsupportedModel:
    """The refusal of a `quant_method`. `place` is the model's folder or name."""
    return UnsupportedModel(
        f"{place} holds weights quantised with {method}, which Windlass cannot read; {REMARKS.get(method, '')}{NEAREST}"
    )


def variant_not_read(place: str, format: str, variant: str, read: str) -> UnsupportedModel:
    """The refusal of a `variant` of a format that is read otherwise; `read` is what is read of it."""
    return UnsupportedModel(
        f"{place} holds weights quantised with {format}, {variant}; of that, Windlass reads {read}: {NEAREST}"
    )
