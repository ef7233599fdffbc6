"""The published analysis of January 2023 from its own assumptions: each of its figures within 3 %, the steps shown."""

import json
import re

import pytest
from typer.testing import CliRunner

from windlass.cli.main import app
from windlass.economics import search, training
from windlass.economics.loss_law import cheapest, constants, law_of
from windlass.errors import UsageError

WITHIN = 0.03


def windlass(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["cost", *arguments], prog_name="windlass")
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("search_query_cost", 0.066),
        ("revenue_per_query", 0.048),
        ("cost_to_revenue", 1.4),
        ("cost_per_1k_tokens", 0.0035),
        ("later_cost_to_revenue", 0.17),
        ("implied_margin", 0.82),
    ],
)
def test_search(name: str, published: float) -> None:
    assert search.january_2023({}).value(name) == pytest.approx(published, rel=WITHIN)


def test_a_query_of_a_chat_like_system() -> None:
    """Published as 0.010, with no digit more: 0.0096 by the words, samples and price that are published with it."""
    value = search.january_2023({}).value("chat_query_cost")
    assert value == pytest.approx((50 + 5 * 400) * 0.02 / 750 * 0.7 * 0.25)
    assert round(value, 3) == 0.010


@pytest.mark.parametrize(("model", "published"), [("gpt3", 1.4e6), ("palm", 11.2e6)])
def test_training(model: str, published: float) -> None:
    sheet = training.january_2023(*training.model_named(model), {})
    assert sheet.value("training_cost") == pytest.approx(published, rel=WITHIN)


def test_explain_prints_the_arithmetic_line_by_line() -> None:
    out = windlass("search", "--only-2023", "--explain")
    for line in (
        "  price_per_1k_tokens = 0.02 USD/1k tokens",
        "  search_words = query_words + results * (words_per_result + summary_words)",
        "= 50 + 10 * (1000 + 400)",
        "= 14,050 words",
        "= 8 * 3.12e+14 * 0.213 / 350000000000",
        "= 0.003515 USD/1k tokens",
    ):
        assert line in out
    assert "= 3.15e+23 / (2.75e+14 * 0.462) / 3600" in windlass("train", "gpt3", "--explain")


@pytest.mark.parametrize(
    ("parameters", "tokens", "loss"),
    [(175e9, 300e9, 2.002), (280e9, 300e9, 1.993), (70e9, 1.4e12, 1.937), (1e12, 300e9, 1.975)],
)
def test_the_loss_law_gives_the_losses_that_the_analysis_prints(parameters: float, tokens: float, loss: float) -> None:
    assert law_of(constants("hoffmann-2022")).loss(parameters, tokens) == pytest.approx(loss, abs=5e-4)


@pytest.mark.parametrize("loss", [1.95, 2.0, 2.2])
def test_the_cheapest_shape_is_where_the_derivatives_balance(loss: float) -> None:
    """At the optimum of 6 N D under a given loss, alpha A / N^alpha = beta B / D^beta (Hoffmann et al., equation 4)."""
    law = law_of(constants("hoffmann-2022"))
    shape = cheapest(law, loss)
    assert law.loss(shape.parameters, shape.tokens) == pytest.approx(loss)
    left, right = law.alpha * law.a / shape.parameters**law.alpha, law.beta * law.b / shape.tokens**law.beta
    assert left == pytest.approx(right, rel=1e-3)


def test_a_model_that_will_serve_many_tokens_is_smaller_and_trained_longer() -> None:
    law = law_of(constants("hoffmann-2022"))
    alone, busy = cheapest(law, 2.0), cheapest(law, 2.0, served=1e13, weight=1.3)
    assert busy.parameters < 0.7 * alone.parameters and busy.tokens > alone.tokens
    for near in (0.9, 1.1):
        size = busy.parameters * near
        other = size * (6 * law.tokens(size, 2.0) + 2 * 1e13 * 1.3)
        assert busy.parameters * (6 * busy.tokens + 2 * 1e13 * 1.3) < other
    with pytest.raises(UsageError, match=r"--loss 1.6 is out of reach: the law's floor is 1.69"):
        cheapest(law, 1.6)


def test_failures_and_attention_cost_what_the_formula_says() -> None:
    out = json.loads(
        windlass("train", "gpt3", "--set", "chips=16384", "--set", "failures_per_million_chip_hours=19.7", "--json")
    )
    today = {name: part["value"] for name, part in out["sheets"][1]["quantities"].items()}
    assert today["attention_flops_per_token"] == 12 * 96 * 12288 * 2048
    assert today["lost_share"] == pytest.approx(19.7e-6 * 16384 * (0.25 + 0.25))
    assert today["paid_chip_hours"] == pytest.approx(today["chip_hours"] / (1 - today["lost_share"]))


def test_a_mixture_of_experts_costs_its_active_parameters() -> None:
    out = json.loads(windlass("train", "deepseek-v3", "--json"))
    assert out["sheets"][1]["quantities"]["matrix_flops_per_token"]["value"] == 6 * 37e9


def test_sizes_on_the_command_line() -> None:
    out = windlass(
        "train", "--params", "70e9", "--tokens", "1.4e12", "--machine", "a100-80", "--mfu", "0.46", "--explain"
    )
    assert "mfu = 0.46 share  [now; set on the command line]" in out
    assert re.search(r"training_flops +5.88e\+23 FLOP", out)
