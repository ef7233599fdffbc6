"""Writes src/windlass/facts/shape_structures.json: the structures of all known shapes by the installed transformers.

Run after a change of shapes.json, or of transformers in constraints.txt:
PYTHONPATH=src python dev/make_shape_structures.py
"""

import json

import transformers

from windlass.facts.shape import shapes
from windlass.facts.shape_structures import FILE
from windlass.jobs.structure_command import ask


def main() -> None:
    """One structure a line, so that a change of one shows as one line."""
    lines = []
    for name, shape in shapes().items():
        structure = ask({"model_type": shape.model_type, "values": dict(shape.config), "samples": None})
        written = structure.as_json()
        lines.append(f"{json.dumps(name)}: {json.dumps(written, default=str, separators=(',', ':'))}")
    text = ",\n".join(lines)
    FILE.write_text(
        f'{{"transformers": "{transformers.__version__}", "structures": {{\n{text}\n}}}}\n', encoding="utf-8"
    )
    print(f"{len(lines)} structures, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
