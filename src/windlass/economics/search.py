"""A search engine answered by a language model: what a query costs, beside what it earns.

The analysis of January 2023 from its own assumptions, and the same question with a second pass over the summaries
(ensemble, checks) at today's prices, rented, and on one card.
"""

from collections.abc import Mapping

from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import packaged
from windlass.economics.formula import Formula
from windlass.economics.money import API_PRICES, OWNED_HOUR, RENTED_HOUR, TOKEN_PRICES
from windlass.economics.sheet import Sheet, make_sheet

JANUARY_2023 = (
    Formula("price_per_word", "price_per_1k_tokens / words_per_1k_tokens", "USD/word", "what the API asks"),
    Formula(
        "paid_share", "(1 - cache_hits) * (1 - provider_margin)", "share",
        "queries that no cache answers, at what they cost the provider",
    ),
    Formula("chat_words", "query_words + chat_samples * chat_answer_words", "words", "a query of a chat-like system"),
    Formula("chat_query_cost", "chat_words * price_per_word * paid_share", "USD/query", "its share of that price"),
    Formula(
        "search_words", "query_words + results * (words_per_result + summary_words)", "words",
        "a search that reads each result and summarises it",
    ),
    Formula("search_query_cost", "search_words * price_per_word * paid_share", "USD/query", "a query of that search"),
    Formula(
        "searches_per_year", "12 * searches_per_month_2012 * internet_share_2020 / internet_share_2012",
        "searches/year", "grown as the internet has",
    ),
    Formula("revenue_per_query", "search_revenue_per_year / searches_per_year", "USD/query", "what a search earns"),
    Formula("cost_to_revenue", "search_query_cost / revenue_per_query", "times", "cost of a query over its revenue"),
    Formula(
        "later_cost_to_revenue", "cost_to_revenue / cheaper_model / cheaper_hardware", "times",
        "the same with a cheaper model on hardware of one's own",
    ),
    Formula("token_flops", "2 * served_parameters", "FLOP/token", "a multiplication and an addition a parameter"),
    Formula("tokens_per_second", "cards * peak_flops * utilisation / token_flops", "tokens/s", "what the cards give"),
    Formula(
        "cost_per_1k_tokens", "cards_per_hour / 3600 / tokens_per_second * 1000", "USD/1k tokens",
        "from arithmetic alone",
    ),
    Formula("implied_margin", "1 - cost_per_1k_tokens / price_per_1k_tokens", "share", "what the price leaves"),
)  # fmt: skip

JANUARY_RESULTS = (
    "search_query_cost", "chat_query_cost", "revenue_per_query", "cost_to_revenue", "later_cost_to_revenue",
    "cost_per_1k_tokens",
)  # fmt: skip

QUERY = (
    Formula("reader_words_in", "results * (query_words + words_per_result)", "words", "each result, with the question"),
    Formula("reader_words_out", "results * summary_words", "words", "summaries"),
    Formula("final_words_in", "ensemble * (query_words + reader_words_out)", "words", "the summaries, read once more"),
    Formula("final_words_out", "ensemble * answer_words", "words", "answers"),
    Formula("check_words_in", "checks * (reader_words_out + answer_words)", "words", "an answer beside the summaries"),
    Formula("check_words_out", "checks * check_words", "words", "what the checks say"),
    Formula(
        "query_tokens_in", "(reader_words_in + final_words_in + check_words_in) / words_per_1k_tokens * 1000", "tokens",
        "read for a query",
    ),
    Formula(
        "query_tokens_out", "(reader_words_out + final_words_out + check_words_out) / words_per_1k_tokens * 1000",
        "tokens", "generated for a query",
    ),
    Formula(
        "model_cost_per_query",
        "(1 - cache_hits) * (query_tokens_in * price_in + query_tokens_out * price_out) / 1e6", "USD/query",
        "the language model, for queries that no cache answers",
    ),
    Formula("query_cost", "existing_cost_per_query + model_cost_per_query", "USD/query", "with the search beneath it"),
    Formula("revenue_per_query", "search_revenue_per_year / searches_per_year", "USD/query", "what a search earns"),
    Formula("cost_to_revenue", "query_cost / revenue_per_query", "times", "cost of a query over its revenue"),
)  # fmt: skip

QUERY_RESULTS = ("query_cost", "model_cost_per_query", "price_in", "price_out", "revenue_per_query", "cost_to_revenue")

BY_API, RENTED, OWNED = (
    (*API_PRICES, *QUERY),
    (*RENTED_HOUR, *TOKEN_PRICES, *QUERY),
    (*OWNED_HOUR, *TOKEN_PRICES, *QUERY),
)


def january_2023(changes: Mapping[str, Assumption]) -> Sheet:
    """The analysis from its own assumptions, with `changes` in their place."""
    pool = packaged("january_2023", "search") | dict(changes)
    return make_sheet("January 2023", JANUARY_2023, JANUARY_RESULTS, pool)


def query_sheet(title: str, formulas: tuple[Formula, ...], pool: Mapping[str, Assumption]) -> Sheet:
    """A query today; `formulas` are BY_API, RENTED or OWNED, `pool` has what those need beside the question's."""
    known = packaged("today", "operation") | packaged("today", "search") | dict(pool)
    return make_sheet(title, formulas, QUERY_RESULTS, known)


def reader_lengths(pool: Mapping[str, Assumption]) -> tuple[int, int]:
    """Tokens of a reader's prompt and of its summary, which speeds are forecast for."""
    words = packaged("today", "operation") | packaged("today", "search") | dict(pool)
    per_word = 1000 / words["words_per_1k_tokens"].value
    read = words["query_words"].value + words["words_per_result"].value
    return max(1, round(read * per_word)), max(2, round(words["summary_words"].value * per_word))
