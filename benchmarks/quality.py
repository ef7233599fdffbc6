"""What packing costs in quality, beside rounding within the range of each 64 weights at no fewer bits.

Run: python -m benchmarks quality [--text FILE] [--rows 512] [--only weights|stories|box]

First the squared error on drawn weights, with and without outliers. Then two models that are small enough to be judged
in minutes: the rise of perplexity in percent over float32, with its standard error over sequences (both read the same
text, so differences are taken sequence by sequence), and the share of places where the likeliest token stays the same.
The text of stories-260k is drawn from itself; the model in the box reads the end of Shakespeare's plays, and is
calibrated with their beginning.

Legend: S sequences of T tokens.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.harness import ROOT, SHARED, machine
from windlass.engine.llm import LLM
from windlass.facts.checkpoint_facts import read_checkpoint
from windlass.facts.packing import Packing
from windlass.facts.tensor_fact import TensorFact
from windlass.jobs.calibration import measured
from windlass.jobs.own_text import own_text
from windlass.kernels.encodings.blocks import INT4, INT8, unpack
from windlass.kernels.quantiser import packed
from windlass.model.multiplied import packed_names

LENGTH = 384
SEQUENCES, CALIBRATING = 64, 64

Round = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(weight (N, K), importance (K) or None) -> the weight as it comes back."""


@dataclass(frozen=True)
class Judged:
    """Losses of every place (S, T - 1) and the likeliest tokens there."""

    losses: torch.Tensor
    likeliest: torch.Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=SHARED / "data/shakespeare/input.txt")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--only", choices=("weights", "stories", "box"))
    options = parser.parse_args()
    print(machine())
    if options.only in (None, "weights"):
        drawn_weights(options.rows)
    if options.only in (None, "stories"):
        folder = SHARED / "models/stories-260k"
        drawn = drawn_text(folder)
        judge(folder, drawn[:SEQUENCES], drawn[SEQUENCES:])
    if options.only in (None, "box"):
        folder = ROOT / "src/windlass/packaged_model"
        judge(folder, *plays(folder, options.text))


def drawn_weights(rows: int) -> None:
    """Mean squared error over that of rounding within the range, on wide layers."""
    torch.manual_seed(0)
    shape, columns = (rows, 8192), 8192
    outliers = torch.where(torch.rand(columns) < 0.01, 8.0, 1.0)
    kinds = {
        "normal": torch.randn(shape),
        "Laplace": torch.distributions.Laplace(0.0, 1.0).sample(shape),
        "Student, 4 degrees": torch.distributions.StudentT(4.0).sample(shape),
        "normal, 1 % of weights 8 times": torch.where(torch.rand(shape) < 0.01, 8.0, 1.0) * torch.randn(shape),
        "normal, 1 % of columns 8 times": outliers * torch.randn(shape),
    }
    for packing in (INT4, INT8):
        for name, weight in kinds.items():
            ours, theirs = (mean_square(way(weight, None) - weight) for way in (blocks(packing), by_range(packing)))
            print(f"{packing.name} {name:32s} squared error {ours / theirs:.3f} of rounding within the range")


def judge(folder: Path, text: torch.Tensor, calibrating: torch.Tensor) -> None:
    """text and calibrating (S, T) tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base = judged(model, text)
    print(f"\n{folder.name}: perplexity {base.losses.mean().exp():.4f} on {text.numel():,} tokens")
    with LLM(folder, dtype="float32") as llm:
        own, given = measured(llm, own_text(llm)), measured(llm, calibrating.tolist())
    ways: list[tuple[str, Round, dict[str, torch.Tensor]]] = [
        (f"{packing.name} {name}", way(packing), importance)
        for packing in (INT8, INT4)
        for name, way, importance in (
            ("rounding in range", by_range, {}),
            ("blocks", blocks, {}),
            ("blocks, self-calibrated", blocks, own),
            ("blocks, calibrated", blocks, given),
        )
    ]
    for name, way, importance in ways:
        other = judged(rounded(model, folder, way, importance), text)
        rise = (other.losses - base.losses).mean(1)
        error = rise.std() / len(rise) ** 0.5
        same = (other.likeliest == base.likeliest).float().mean()
        print(
            f"{name:28s} perplexity +{100 * (rise.mean().exp() - 1):.3f} % +- {100 * error:.3f}, "
            f"the same likeliest token at {100 * same:.2f} % of places",
            flush=True,
        )


def rounded(model: PreTrainedModel, folder: Path, way: Round, importance: dict[str, torch.Tensor]) -> PreTrainedModel:
    """The model with the matrices that `windlass quantize` packs as `way` gives them back."""
    changed = copy.deepcopy(model)
    tensors = {n: f for n, f in read_checkpoint(folder).tensors.items() if isinstance(f, TensorFact)}
    for parameter in packed_names(model.config, tensors).values():
        weight = changed.get_parameter(parameter)
        weight.data = way(weight.data, importance.get(parameter))
    return changed


def blocks(packing: Packing) -> Round:
    """As the product packs."""

    def way(weight: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
        done = packed(weight, packing, importance)
        return unpack(packing, {"blocks": done.blocks}, tuple(weight.shape), 0, len(weight), torch.float32)

    return way


def by_range(packing: Packing) -> Round:
    """Rounded within the range of 64 neighbours: a scale in float16 and a whole zero, as is usual."""

    def way(weight: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
        top = 2**packing.bits - 1
        beyond = -weight.shape[1] % 64
        whole = torch.cat([weight, weight[:, -1:].expand(-1, beyond)], dim=1) if beyond else weight
        groups = whole.reshape(-1, 64)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale = ((high - low) / top).clamp_min(1e-9)
        zero = (-low / scale).round()
        codes = ((groups / scale).round() + zero).clamp(0, top)
        return ((codes - zero) * scale.half().float()).view(whole.shape)[:, : weight.shape[1]].contiguous()

    return way


@torch.inference_mode()
def judged(model: PreTrainedModel, text: torch.Tensor) -> Judged:
    losses, likeliest = [], []
    for part in text.split(8):
        scores = model(part).logits[:, :-1].float().log_softmax(-1)
        losses.append(-scores.gather(-1, part[:, 1:, None])[..., 0])
        likeliest.append(scores.argmax(-1))
    return Judged(torch.cat(losses), torch.cat(likeliest))


def drawn_text(folder: Path) -> torch.Tensor:
    """(2 S, T) tokens that the model itself draws."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(1)
    start = torch.full((SEQUENCES + CALIBRATING, 1), model.config.bos_token_id or 1)
    return model.generate(
        start, do_sample=True, top_k=0, max_new_tokens=LENGTH - 1, min_new_tokens=LENGTH - 1, pad_token_id=0
    )


def plays(folder: Path, text: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, T) tokens from the end, and as many from the beginning."""
    ids = AutoTokenizer.from_pretrained(folder)(text.read_text(), return_tensors="pt").input_ids[0]
    return ids[-SEQUENCES * LENGTH :].view(-1, LENGTH), ids[: CALIBRATING * LENGTH].view(-1, LENGTH)


def mean_square(x: torch.Tensor) -> float:
    return float(x.square().mean())


if __name__ == "__main__":
    main()
