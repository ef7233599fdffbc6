"""Runs a benchmark by name: python -m benchmarks NAME ...; without a name it lists them."""

import runpy
import sys

NAMES = (
    "offload",
    "prefill",
    "cache",
    "resident",
    "few_rows",
    "tiers",
    "forecast",
    "job_forecast",
    "flexgen_published",
    "packed",
    "packed_products",
    "quantize",
    "quality",
    "cuda_products",
    "torture",
    "continuous",
    "cost_job",
    "serving",
    "soak",
)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        raise SystemExit(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [--help]")
    name = sys.argv.pop(1)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
