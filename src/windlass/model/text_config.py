"""Finds the text decoder's config inside a checkpoint's config, and refuses what is not a decoder of text.

A composite checkpoint (gemma3, mistral3, qwen vision models) nests the config of its text model; Windlass runs that
part alone.
"""

import copy

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, PreTrainedConfig

from windlass.errors import UnsupportedModel

# Text parts without a causal class of their own, the type that computes the same for text, and what it must be told:
# three-axis rotary positions whose axes are equal, as they are for text, are ordinary rotary positions.
SAME_TEXT_MODEL: dict[str, tuple[str, dict[str, object]]] = {
    "qwen2_vl_text": ("qwen2", {}),
    "qwen2_5_vl_text": ("qwen2", {}),
    "qwen3_vl_text": ("qwen3", {}),
    "qwen3_vl_moe_text": ("qwen3_moe", {"norm_topk_prob": True}),
}
# Where the tensors of a text part lie in a composite checkpoint: (pattern, name in the text model), first match wins.
TEXT_NAMES = (
    (r"^(?:model\.)?language_model\.model\.", "model."),
    (r"^(?:model\.)?language_model\.lm_head\.", "lm_head."),
    (r"^(?:model\.)?(?:language_model|text_model)\.", "model."),
)
# What of a three-axis rotary setting means nothing for text.
AXIS_KEYS = ("mrope_section", "mrope_interleaved", "type")


def decoder_only(config: PreTrainedConfig) -> None:
    """Raises UnsupportedModel for encoder-decoders, and for encoders that merely could be made decoders."""
    if config.is_encoder_decoder:
        raise UnsupportedModel(
            f"{config.model_type} is an encoder-decoder; Windlass runs decoder-only language models: choose one of them"
        )
    if config.to_dict().get("is_decoder") is False and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise UnsupportedModel(
            f"{config.model_type} is an encoder (is_decoder is false in its config.json); "
            "Windlass runs decoder-only language models: choose one of them"
        )


def text_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the causal language model to run: `config` itself, or the text part nested in it.

    Raises UnsupportedModel for encoders, encoder-decoders and types without a causal language model in transformers.
    """
    decoder_only(config)
    text = _as_causal(_nested_text(config))
    if text is not config and "tie_word_embeddings" in config.to_dict():
        text = copy.deepcopy(text)
        text.tie_word_embeddings = config.tie_word_embeddings  # the whole model's head is what is tied, or is not
    decoder_only(text)
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        inner = "" if text.model_type == config.model_type else f" (its text part is {text.model_type})"
        raise UnsupportedModel(
            f"transformers has no causal language model of type {config.model_type}{inner}; choose another checkpoint"
        )
    return text


def _nested_text(config: PreTrainedConfig) -> PreTrainedConfig:
    try:
        return config.get_text_config(decoder=True)
    except ValueError as error:
        raise UnsupportedModel(f"{config.model_type} nests more than one text model: {error}") from error


def _as_causal(text: PreTrainedConfig) -> PreTrainedConfig:
    if text.model_type not in SAME_TEXT_MODEL:
        return text
    model_type, told = SAME_TEXT_MODEL[text.model_type]
    values = {key: value for key, value in text.to_dict().items() if key != "model_type"}
    rope = {key: value for key, value in (values.get("rope_parameters") or {}).items() if key not in AXIS_KEYS}
    return AutoConfig.for_model(model_type, **(values | {"rope_parameters": rope} | told))


def known_positions(config: PreTrainedConfig) -> int | None:
    """How many positions a model was made for, whatever its config calls them; None where it does not say."""
    return getattr(config, "max_position_embeddings", None)
