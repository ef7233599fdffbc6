"""Names of tensors without their numbers, and the rules that say where all tensors of a name go."""

from windlass.facts.tensor_name import (
    Destination,
    NameRule,
    natural,
    numbers_in,
    renamed_by,
    rule_for,
    samples,
    without_numbers,
)

EXPERT = "model.layers.3.block_sparse_moe.experts.7.w1.weight"


def test_a_number_is_a_part_of_the_name_of_its_own() -> None:
    assert without_numbers(EXPERT) == "model.layers.#.block_sparse_moe.experts.#.w1.weight"
    assert numbers_in(EXPERT) == ["3", "7"]
    assert without_numbers("h.0.mlp2.11") == "h.#.mlp2.#"


def test_a_rule_carries_the_numbers_that_stay() -> None:
    rule = rule_for(EXPERT, Destination("model.layers.3.mlp.experts.gate_up_proj", "w1", 1))
    assert rule == NameRule("model.layers.#0.mlp.experts.gate_up_proj", "w1", 1)
    assert rule.destination(["10", "2"]) == Destination("model.layers.10.mlp.experts.gate_up_proj", "w1", 1)
    assert NameRule(*rule.as_list()) == rule


def test_numbers_that_only_the_parameter_has_stay_as_they_are() -> None:
    rule = rule_for("h.4.fc.weight", Destination("layers.4.mlp.0.weight"))
    assert rule.destination(["9"]).parameter == "layers.9.mlp.0.weight"


def test_samples_tell_numbers_apart_and_reach_both_ends() -> None:
    names = [f"l.{layer}.e.{expert}" for layer in range(12) for expert in range(3)]
    assert samples(names) == {"l.#.e.#": ["l.0.e.1", "l.0.e.0", "l.11.e.2"]}
    assert samples(["norm"]) == {"norm": ["norm"]}


def test_names_without_a_rule_keep_themselves() -> None:
    assert renamed_by({}, "vision.0.w") == Destination("vision.0.w")


def test_numbers_sort_as_numbers() -> None:
    assert sorted(["e.10.w", "e.9.w", "a"], key=natural) == ["a", "e.9.w", "e.10.w"]
