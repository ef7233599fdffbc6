"""What an hour of a machine costs, rented or owned, and what its tokens cost then: formulas that questions share."""

from windlass.economics.formula import Formula

POWER = (
    Formula(
        "card_power", "card_watts * (card_idle_share + (1 - card_idle_share) * card_busy)", "W",
        "what the card takes on average: a share of its rating always, the rest while it computes",
    ),
    Formula("host_power", "host_idle_watts + host_busy_watts * host_busy", "W", "what the rest of the machine takes"),
    Formula("power", "card_power + host_power", "W", "what the machine takes"),
)  # fmt: skip

OWNED_HOUR = (
    *POWER,
    Formula("machine_price", "card_price + host_price", "USD", "what the machine costs to buy"),
    Formula(
        "capital_per_hour", "machine_price / (life_years * 8760 * use)", "USD/h",
        "its price, over the hours that it works in its life",
    ),
    Formula("power_per_hour", "power / 1000 * electricity", "USD/h", "its electricity"),
    Formula("machine_per_hour", "capital_per_hour + power_per_hour", "USD/h", "an hour of work of the machine"),
)  # fmt: skip

RENTED_HOUR = (Formula("machine_per_hour", "rent_per_hour", "USD/h", "an hour of the machine"),)

TOKEN_PRICES = (
    Formula("tokens_in_per_second", "tokens_in / prefill_seconds", "tokens/s", "prompts read"),
    Formula("tokens_out_per_second", "tokens_out / decode_seconds", "tokens/s", "tokens generated"),
    Formula(
        "price_in", "machine_per_hour / 3600 / tokens_in_per_second * 1e6 / fill", "USD/Mtoken",
        "a million tokens read, where the machine is asked for a share `fill` of what it can do",
    ),
    Formula("price_out", "machine_per_hour / 3600 / tokens_out_per_second * 1e6 / fill", "USD/Mtoken", "generated"),
)  # fmt: skip

API_PRICES = (
    Formula("price_in", "api_input", "USD/Mtoken", "a million tokens read"),
    Formula("price_out", "api_output", "USD/Mtoken", "a million tokens generated"),
)
