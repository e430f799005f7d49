"""Writes docs/traced_models.md: published models, traced in one training step each, and what became of every parameter.

    pip install -e ".[models]"                      # in an environment of its own
    python tools/traced_models.py                   # all models, some minutes
    python tools/traced_models.py gpt2 bert         # some, printed and not written

The models are built from their published definitions with random weights; nothing is downloaded. Each is run in
training mode on small random inputs, without a trace and in one, from the same random state: where gradients, buffers
or random numbers differ in a bit, the tool stops.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

import sharedgrad as sg

PAGE = Path(__file__).parents[1] / "docs" / "traced_models.md"
TYPES = {"float64": torch.float64, "float32": torch.float32}
WORDS, LENGTH = 97, 12
Loss = Callable[[nn.Module, torch.dtype], torch.Tensor]  # the caller's own forward pass, on inputs of that type


class Model(NamedTuple):
    """A model: how it is told in the table, how it is made, and its loss on a batch."""

    told: str
    make: Callable[[], nn.Module]
    loss: Loss


class Traced(NamedTuple):
    """What became of the parameters of one model in one type."""

    uses: int
    certified: int
    samples: int  # parameters whose uses tell the samples apart
    zero: list[str]
    reported: dict[str, tuple[str, ...]]
    residual: float


def describe_operators() -> list[Any]:
    """Let torchvision be imported where its compiled operators are those of another PyTorch; only detection needs them.

    Returns:
        The library of operators, which lives as long as the object.
    """
    found = find_spec("torchvision")
    for place in found.submodule_search_locations or () if found else ():
        try:
            torch.ops.load_library(str(Path(place) / "_C.so"))
        except OSError:
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            return [library]
    return []


def torchvision(name: str, **settings: Any) -> nn.Module:
    """A model of torchvision."""
    return getattr(import_module("torchvision.models"), name)(num_classes=10, **settings)


def transformer(model: str, configuration: str, **settings: Any) -> nn.Module:
    """A model of transformers."""
    library = import_module("transformers")
    library.logging.set_verbosity_error()
    plain = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = getattr(library, configuration)(vocab_size=WORDS, **plain, **settings)
    return getattr(library, model)(config)


def images(batch: int, size: int) -> Loss:
    """Cross-entropy of random labels."""

    def loss(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
        y = model(torch.randn(batch, 3, size, size, dtype=torch.float64).to(dtype))
        return functional.cross_entropy(y, torch.randint(10, (batch,)))

    return loss


def words(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """The model's own loss on random words."""
    index = torch.randint(WORDS, (3, LENGTH))
    return model(input_ids=index, labels=index).loss


def sequences(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """What is to be said, given what was said; no word sees later ones."""
    source, target, wanted = torch.randn(3, 3, LENGTH, 16, dtype=torch.float64).to(dtype)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=dtype)
    return functional.mse_loss(model(source, target, tgt_mask=mask, tgt_is_causal=True), wanted)


def steps(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """Every step's output against a random one."""
    x, wanted = torch.randn(3, LENGTH, 8, dtype=torch.float64), torch.randn(3, LENGTH, 32, dtype=torch.float64)
    return functional.mse_loss(model(x.to(dtype))[0], wanted.to(dtype))


RECURRENT: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.2}
MODELS: dict[str, Model] = {
    "resnet18": Model("torchvision, 4 images 64×64", lambda: torchvision("resnet18"), images(4, 64)),
    "mobilenet_v3_small": Model(
        "torchvision, 4 images 64×64", lambda: torchvision("mobilenet_v3_small"), images(4, 64)
    ),
    "convnext_tiny": Model("torchvision, 2 images 32×32", lambda: torchvision("convnext_tiny"), images(2, 32)),
    "vit_b_16": Model("torchvision, 2 images 32×32", lambda: torchvision("vit_b_16", image_size=32), images(2, 32)),
    "swin_t": Model("torchvision, 2 images 32×32", lambda: torchvision("swin_t"), images(2, 32)),
    "gpt2": Model(
        "transformers, GPT2LMHeadModel: 2 layers, 64 channels, 3 × 12 words",
        lambda: transformer("GPT2LMHeadModel", "GPT2Config", n_positions=16, n_embd=64, n_layer=2, n_head=4),
        words,
    ),
    "bert": Model(
        "transformers, BertForMaskedLM: 2 layers, 64 channels, 3 × 12 words",
        lambda: transformer(
            "BertForMaskedLM",
            "BertConfig",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=16,
        ),
        words,
    ),
    "llama": Model(
        "transformers, LlamaForCausalLM: 2 layers, 64 channels, 3 × 12 words",
        lambda: transformer(
            "LlamaForCausalLM",
            "LlamaConfig",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
        ),
        words,
    ),
    "t5": Model(
        "transformers, T5ForConditionalGeneration: 2 + 2 layers, 64 channels, 3 × 12 words",
        lambda: transformer(
            "T5ForConditionalGeneration",
            "T5Config",
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        ),
        words,
    ),
    "nn.Transformer": Model(
        "torch.nn: 2 + 2 layers, 16 channels, 3 × 12 tokens",
        lambda: nn.Transformer(16, 2, 2, 2, 32, batch_first=True),
        sequences,
    ),
    "nn.LSTM": Model("torch.nn: 2 layers both ways, 3 × 12 steps", lambda: nn.LSTM(8, 16, **RECURRENT), steps),
    "nn.GRU": Model("torch.nn: 2 layers both ways, 3 × 12 steps", lambda: nn.GRU(8, 16, **RECURRENT), steps),
}


def built(model: Model, dtype: torch.dtype) -> nn.Module:
    """In training mode, with weights away from zeros and ones."""
    torch.manual_seed(0)
    made = model.make().to(dtype).train()
    with torch.no_grad():
        for p in made.parameters():
            p += 0.02 * torch.randn(p.shape, dtype=torch.float64).to(dtype)
    return made


def state(model: nn.Module) -> list[torch.Tensor]:
    """What a step leaves behind."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*gradients, *model.buffers(), torch.get_rng_state()]


def traced(model: Model, dtype: torch.dtype) -> Traced:
    """One step without a trace and one in it."""
    plain, own = built(model, dtype), built(model, dtype)
    torch.manual_seed(1)
    model.loss(plain, dtype).backward()
    expected = state(plain)
    torch.manual_seed(1)
    with sg.trace(own) as t:
        model.loss(own, dtype).backward()
    found = state(own)
    if len(found) != len(expected) or not all(map(torch.equal, found, expected)):
        raise SystemExit("the trace has changed the step")
    (one,) = t.passes
    seen = {name: one[name] for name in one}
    reported = {name: other.operations for name, other in one.other.items()}
    return Traced(
        uses=sum(u.count for u in seen.values()),
        certified=sum(u.certified for u in seen.values()),
        samples=sum("sample" in u.axes for u in seen.values()),
        zero=[name for name, u in seen.items() if u.certified and u.zero_up_to_rounding],
        reported=reported,
        residual=max(u.residual for u in seen.values()),
    )


HEAD = """# Published models, traced

One training step of each model in `sg.trace(model)`. Every parameter is *certified*: its uses add up to the gradient
that the step deposited, within 1e-12 in float64 and 1e-5 in float32 of the sum of their lengths; or it is reported,
with the operation that its gradient came through. *Samples*: how many parameters' uses tell the samples apart.
*Zero*: how many gradients are zero up to rounding. Models are built from their published definitions with random
weights, in training mode with dropout and batch statistics. The step in the trace leaves the same gradients, buffers
and random state as the step without it, bit for bit; where it does not, the tool stops.

This page is written by `python tools/traced_models.py` ({versions}).

| model | type | parameters | numbers | uses | certified | samples | zero | reported | largest residual |
|---|---|---|---|---|---|---|---|---|---|
"""


def row(name: str, kind: str, made: nn.Module, found: Traced) -> str:
    """A line of the table."""
    tensors = list(made.parameters())
    numbers = sum(p.numel() for p in tensors)
    cells = (
        len(tensors),
        f"{numbers:,}",
        f"{found.uses:,}",
        found.certified,
        found.samples,
        len(found.zero),
        len(found.reported),
    )
    return f"| {name} | {kind} | {' | '.join(map(str, cells))} | {found.residual:.1e} |"


def told(name: str, model: Model, found: dict[str, Traced]) -> list[str]:
    """The names behind the numbers of a model."""
    lines = [f"- **{name}** ({model.told})"]
    zeros = {kind: one.zero for kind, one in found.items()}
    if len({tuple(z) for z in zeros.values()}) == 1:
        zeros = {"": next(iter(zeros.values()))}
    for kind, names in zeros.items():
        if names:
            lines.append(f"  - zero up to rounding{' in ' + kind if kind else ''}: {listed(names)}")
    for kind, one in found.items():
        lines += [f"  - reported in {kind}: `{key}`, through {', '.join(o)}" for key, o in one.reported.items()]
    return lines


def listed(names: list[str], most: int = 4) -> str:
    """The first few names."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + rest


def main(chosen: list[str]) -> None:
    """Trace what was chosen and print it; trace all and write the page."""
    unknown = [name for name in chosen if name not in MODELS]
    if unknown:
        raise SystemExit(f"traced_models: no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    logging.disable(logging.WARNING)
    operators = describe_operators()
    rows, notes = [], []
    for name in chosen or MODELS:
        model = MODELS[name]
        found = {kind: traced(model, dtype) for kind, dtype in TYPES.items()}
        rows += [row(name, kind, built(model, TYPES[kind]), one) for kind, one in found.items()]
        notes += told(name, model, found)
        print("\n".join(rows[-2:]), flush=True)
    versions = [f"{n} {import_module(n).__version__.split('+')[0]}" for n in ("torch", "torchvision", "transformers")]
    page = HEAD.format(versions=", ".join(versions)) + "\n".join([*rows, "", *notes]) + "\n"
    if chosen:
        print("\n".join(notes))
    else:
        PAGE.write_text(page, encoding="utf-8")
    operators.clear()


if __name__ == "__main__":
    main(sys.argv[1:])
