"""Trains the model that ships with the package, so that Windlass has a real model to show where there is no network.

    python dev/train_packaged_model.py --data input.txt                   trains, or goes on where it was killed
    python dev/train_packaged_model.py --data input.txt --only-measure    says how good the shipped one is

The data is one text of plays: a speaker's name, a colon, the lines of the speech, an empty line. Its last tenth is held
out: neither tokenizer nor model learns from it. The same flags, torch and number of threads give the same weights,
killed and resumed or not: each step draws its rows and its dropout from a seed of its own.
What was tried is in dev/packaged_model.md.

Legend: B rows, T tokens of a row, V pieces of the vocabulary.
"""

import argparse
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SHIPPED = Path(__file__).resolve().parent.parent / "src" / "windlass" / "packaged_model"
BEGIN, END = "<s>", "</s>"
BEGIN_ID, END_ID = 0, 1
HELD_OUT = 0.1
# What may change when a run goes on: the rate follows the new number of steps from there.
CHANGEABLE = ("steps", "evaluate_every")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights. Rates are AdamW's; `rate` is its peak, reached after `warm_up` steps."""

    steps: int = 1500
    seed: int = 0
    threads: int = 2
    vocabulary: int = 1024
    width: int = 256
    feed_forward: int = 704
    layers: int = 4
    heads: int = 4
    key_heads: int = 2
    context: int = 512
    rows: int = 4
    rate: float = 2e-3
    last_rate: float = 1e-4
    warm_up: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.1
    evaluate_every: int = 100


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy of the held-out text: `nats` over all `tokens`, which spell `text_bytes` bytes."""

    nats: float
    tokens: int
    text_bytes: int

    @property
    def nats_a_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_a_byte(self) -> float:
        return self.nats / math.log(2) / self.text_bytes

    def line(self) -> str:
        return f"held out: {self.nats_a_token:.4f} nats a token, {self.bits_a_byte:.4f} bits a byte"


def split(text: str) -> tuple[str, str]:
    """The text to learn from and the held-out tail, which begins with a speech."""
    cut = text.index("\n\n", int((1 - HELD_OUT) * len(text))) + 2
    return text[:cut], text[cut:]


def trained_tokenizer(text: str, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Pairs of bytes, so that any text survives the way there and back; `<s>` is put before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, BEGIN_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )


class Rows:
    """Draws rows to learn from. Each begins with `<s>` and the start of a speech or, as often, of any line."""

    def __init__(self, tokens: Tensor, newline: int, context: int) -> None:
        self._tokens = tokens
        self._context = context
        ends = tokens[: -context - 1] == newline
        self._lines = ends.nonzero()[:, 0] + 1
        self._speeches = (ends[1:] & ends[:-1]).nonzero()[:, 0] + 2

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs (B, T), and for each the token that follows it (B, T)."""
        starts = torch.stack([self._one_of(self._speeches if row % 2 else self._lines) for row in range(count)])
        wanted = self._tokens[starts[:, None] + torch.arange(self._context)]
        return after_begin(wanted), wanted

    def _one_of(self, places: Tensor) -> Tensor:
        return places[torch.randint(len(places), ())]


def after_begin(wanted: Tensor) -> Tensor:
    """The inputs (B, T) that ask for the tokens `wanted` (B, T): the same, moved by one behind `<s>`."""
    return functional.pad(wanted[:, :-1], (1, 0), value=BEGIN_ID)


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """A Llama of float32 weights, with dropout on what each block adds to the residual stream."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, top_p=0.95, bos_token_id=BEGIN_ID, eos_token_id=END_ID
    )

    def drop(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return functional.dropout(output, recipe.dropout, module.training)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight.data /= math.sqrt(2 * recipe.layers)  # the sum of all blocks begins at the size of one
            last.register_forward_hook(drop)
    return model


def new_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Matrices decay towards zero; the scales of the norms do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    scales = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.95), fused=True)


def rate_at(step: int, recipe: Recipe) -> float:
    """A straight line up, then half a cosine down to `last_rate`."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.last_rate + (recipe.rate - recipe.last_rate) * (1 + math.cos(math.pi * done)) / 2


def losses(model: LlamaForCausalLM, inputs: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy in nats of every wanted token, (B * T,) float32; matrices are multiplied in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=inputs, use_cache=False).logits  # (B, T, V)
    return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), reduction="none")


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, tokens: Tensor, text_bytes: int, recipe: Recipe) -> Loss:
    """Every token of the held-out text once, in rows of the context's length that know nothing of one another."""
    model.eval()
    whole = len(tokens) // recipe.context * recipe.context
    rows = [*tokens[:whole].view(-1, recipe.context).split(recipe.rows), tokens[None, whole:]]
    nats = sum(losses(model, after_begin(wanted), wanted).sum().item() for wanted in rows if wanted.numel())
    model.train()
    return Loss(nats, len(tokens), text_bytes)


def train_step(model: LlamaForCausalLM, optimizer: torch.optim.AdamW, rows: Rows, step: int, recipe: Recipe) -> float:
    """One step of AdamW; returns the loss in nats a token."""
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, recipe)
    loss = losses(model, *rows.draw(recipe.rows)).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


class Checkpoint:
    """Where a run stands, in a folder: `last.pt` to go on from, `best.safetensors` with the best weights so far."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._last = folder / "last.pt"
        self._best = folder / "best.safetensors"
        self._recipe = {name: value for name, value in asdict(recipe).items() if name not in CHANGEABLE}
        self.step, self.best, self.seconds = 0, math.inf, 0.0

    def resume(self, model: nn.Module, optimizer: torch.optim.AdamW) -> None:
        if not self._last.exists():
            return
        state = torch.load(self._last)
        changed = sorted(key for key, value in self._recipe.items() if state["recipe"].get(key) != value)
        if changed:
            raise SystemExit(f"{self._last} was made with other values of {', '.join(changed)}; name another folder")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        print(f"going on after {self.step} steps", flush=True)

    def save(self, model: nn.Module, optimizer: torch.optim.AdamW, loss: float) -> None:
        """Keeps the weights as the best if `loss` is; a kill at any moment leaves one whole file or the other."""
        if loss < self.best:
            self.best = loss
            weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
            save_file(weights, self._best.with_suffix(".new"))
            os.replace(self._best.with_suffix(".new"), self._best)
        state = {"recipe": self._recipe, "step": self.step, "best": self.best, "seconds": self.seconds}
        state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, self._last.with_suffix(".new"))
        os.replace(self._last.with_suffix(".new"), self._last)

    def best_weights(self) -> dict[str, Tensor]:
        return load_file(self._best)


def encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """The text's tokens (T,), without `<s>`."""
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def train(text: str, recipe: Recipe, folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model with its best weights, and its tokenizer."""
    learned, held_out = split(text)
    tokenizer = trained_tokenizer(learned, recipe)
    tokens, held_out_tokens = encoded(tokenizer, learned), encoded(tokenizer, held_out)
    model = new_model(recipe)
    optimizer = new_optimizer(model, recipe)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size:,} parameters; {len(tokens):,} tokens of {len(learned.encode()) / len(tokens):.2f} bytes", flush=True)
    checkpoint = Checkpoint(folder, recipe)
    checkpoint.resume(model, optimizer)
    rows = Rows(tokens, newline=encoded(tokenizer, "\n")[0].item(), context=recipe.context)
    for stretch in stretches(checkpoint.step, recipe):
        began = time.process_time()
        steps = [train_step(model, optimizer, rows, step, recipe) for step in stretch]
        loss = held_out_loss(model, held_out_tokens, len(held_out.encode()), recipe)
        checkpoint.step = stretch.stop
        checkpoint.seconds += time.process_time() - began
        checkpoint.save(model, optimizer, loss.nats_a_token)
        learning = f"learning: {sum(steps) / len(steps):.4f}"
        print(
            f"{stretch.stop:5d} steps, {checkpoint.seconds:5.0f} processor seconds, {learning}, {loss.line()}",
            flush=True,
        )
    model.load_state_dict(checkpoint.best_weights(), strict=False)  # the head is the embedding, and is stored once
    return model, tokenizer


def stretches(step: int, recipe: Recipe) -> Iterator[range]:
    """The steps still to do, from one look at the held-out text to the next."""
    for start in range(step, recipe.steps, recipe.evaluate_every):
        yield range(start, min(start + recipe.evaluate_every, recipe.steps))


def ship(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the folder that transformers and Windlass read; weights are rounded to bfloat16."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(folder: Path, text: str, recipe: Recipe) -> Loss:
    """What the files in `folder` reach on the held-out text, read back by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    _, held_out = split(text)
    return held_out_loss(model, encoded(tokenizer, held_out), len(held_out.encode()), recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the text of the plays")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="folder of the finished model")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("build/packaged_model"), help="folder to go on from if killed"
    )
    parser.add_argument("--only-measure", action="store_true", help="measure the model in --output and train nothing")
    for field in fields(Recipe):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    flags = parser.parse_args()
    recipe = Recipe(**{field.name: getattr(flags, field.name) for field in fields(Recipe)})
    torch.set_num_threads(recipe.threads)
    text = flags.data.read_text(encoding="utf-8")
    if not flags.only_measure:
        ship(*train(text, recipe, flags.checkpoints), flags.output)
    print(measure(flags.output, text, recipe).line())


if __name__ == "__main__":
    main()
