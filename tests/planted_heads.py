"""A small real GPT-2 whose weights are set by hand, so that one knows what each attention head does.

`planted_model()` gives the wrapped model and the heads by what they do:

* "previous" (0, 1) attends to the token before and writes which one it is;
* "duplicate" (0, 2) attends to an earlier occurrence of the token, and writes that there is one;
* "induction" (1, 2) attends to tokens that followed an earlier occurrence of the token (it reads what "previous" wrote)
  and copies them into the prediction, in equal shares where there are several;
* "copy" (1, 3) does so only for words of `SECRETS`, and writes twice as much: the retrieval head. In a text where "is"
  comes many times but one time before a secret, it alone finds the answer.

Planted heads rest on the first token, from which nothing is copied; so the first token itself is never retrieved. The
eight other heads attend uniformly and write a little noise. `planted_model(idle=0)` makes them write nothing.

How: the residual stream has places for the token (one-hot), its position (Fourier features), the token before and the
prediction. Two entries of ±BALLAST make all variances nearly equal, and BALANCE makes all means 0, so that layer norm
is a constant factor, which its gain takes back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "<s>", "</s>")
_SECRETS = "copper lantern silver violin amber anchor velvet compass ivory feather marble kettle"
SECRETS = tuple(_SECRETS.split())
PLACES = ("Lisbon", "Oslo", "Cairo", "Lima")
FORM = (".", "?", "what", "the", "secret", "word", "of", "is", "in")  # of needles and questions
_FILLER = "a cat dog bird tree house river stone sun moon runs sleeps sings sees answer"
FILLER = tuple(_FILLER.split())
WORDS = (*SPECIALS, *SECRETS, *PLACES, *FORM, *FILLER)
HEADS = {"previous": (0, 1), "duplicate": (0, 2), "induction": (1, 2), "copy": (1, 3)}

BLOCKS, N_HEADS, D_HEAD, POSITIONS = 3, 4, 96, 128
V, WAVES = len(WORDS), 24
D = N_HEADS * D_HEAD
BALLAST = 100.0
SHARP = 100.0  # logit of a match; e^-SHARP is how much leaks elsewhere

# Places in the residual stream.
TOKEN = slice(0, V)
POSITION = slice(V, V + 2 * WAVES)
BEFORE = slice(POSITION.stop, POSITION.stop + V)  # the token before, by the previous-token head
PREDICTION = slice(BEFORE.stop, BEFORE.stop + V)
FIRST, SEEN, BALANCE = range(PREDICTION.stop, PREDICTION.stop + 3)  # nothing reads the last
WEIGHTS_OF_COPIES = {"induction": 1.0, "copy": 2.0}


def planted_model(idle: float = 0.02, seed: int = 0) -> tuple[Any, dict[str, tuple[int, int]]]:
    """(Model, {"previous": (block, head), …}); `idle` is the size of what the other heads write."""
    from probes.models import wrap_model

    config = transformers.GPT2Config(
        vocab_size=V, n_positions=POSITIONS, n_embd=D, n_layer=BLOCKS, n_head=N_HEADS, n_inner=2 * V,
        activation_function="relu", tie_word_embeddings=False, bos_token_id=2, eos_token_id=3,
        pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        _plant(model, idle, torch.Generator().manual_seed(seed))
    return wrap_model(model.eval(), tokenizer(), name="planted"), dict(HEADS)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word or sign; no special tokens are added."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>",
        eos_token="</s>", model_max_length=POSITIONS,
    )  # fmt: skip


def word_ids(*words: str) -> list[int]:
    return [WORDS.index(word) for text in words for word in text.split()]


def _waves(positions: torch.Tensor) -> torch.Tensor:
    """(n, 2·WAVES) features of unit norm, nearly orthogonal for different positions (cosine −0.32 to 0.23)."""
    turns = np.random.default_rng(6).choice(np.arange(1, 64), WAVES, replace=False)
    angle = positions[:, None] * torch.tensor(turns) * (2 * torch.pi / POSITIONS)
    return torch.cat([angle.cos(), angle.sin()], 1).float() / WAVES**0.5


def _plant(model: Any, idle: float, generator: torch.Generator) -> None:
    for parameter in model.parameters():
        parameter.zero_()
    base = model.transformer
    places = torch.arange(POSITIONS)
    base.wte.weight[:, TOKEN] = torch.eye(V)
    base.wpe.weight[:, POSITION] = _waves(places)
    base.wpe.weight[0, FIRST] = 1.0
    base.wpe.weight[:, -2], base.wpe.weight[:, -1] = BALLAST, -BALLAST
    gain = torch.full((D,), BALLAST * (2 / D) ** 0.5)
    gain[-2:] = 0.0
    for norm in [base.ln_f, *(norm for block in base.h for norm in (block.ln_1, block.ln_2))]:
        norm.weight.copy_(gain)
    model.lm_head.weight[:, PREDICTION] = 8 * torch.eye(V)
    _forget_first_token(base.h[0].mlp)
    for block in range(BLOCKS):
        if block:  # later MLPs are never active, but would write if they were
            noise = 0.1 * torch.randn(2 * V, V, generator=generator)
            base.h[block].mlp.c_proj.weight[:, PREDICTION] = noise
        for head in range(N_HEADS):
            _Head(base.h[block].attn, head).idle(idle, generator)
    _previous(_Head(base.h[0].attn, HEADS["previous"][1]))
    _duplicate(_Head(base.h[0].attn, HEADS["duplicate"][1]))
    for name, only in (("induction", None), ("copy", SECRETS)):
        block, head = HEADS[name]
        _follow(_Head(base.h[block].attn, head), only, WEIGHTS_OF_COPIES[name])
    writers = [part.c_proj for block in base.h for part in (block.attn, block.mlp)]
    for module in (base.wte, base.wpe, *writers):  # whatever is written has mean 0
        module.weight[:, BALANCE] -= module.weight.sum(1)


class _Head:
    """The weights of one head as matrices (d, d_head) that read the normed stream, and one (d_head, d) that writes."""

    def __init__(self, attention: Any, head: int) -> None:
        columns = slice(head * D_HEAD, (head + 1) * D_HEAD)
        fused = attention.c_attn.weight  # Conv1D: (d, 3·d), query, key, value
        self.q, self.k, self.v = (part[:, columns] for part in fused.split(D, dim=1))
        self.q_bias = attention.c_attn.bias[:D][columns]
        self.o = attention.c_proj.weight[columns]

    def idle(self, size: float, generator: torch.Generator) -> None:
        self.v[TOKEN] = size * torch.randn(V, D_HEAD, generator=generator)
        self.o[:, PREDICTION] = torch.randn(D_HEAD, V, generator=generator) / D_HEAD**0.5

    def clear(self) -> None:
        for weight in (self.q, self.k, self.v, self.o):
            weight.zero_()

    def copies(self, target: slice, weight: float) -> None:
        self.v[TOKEN, :V] = torch.eye(V)
        self.o[:V, target] = weight * torch.eye(V)

    def rests_on_first(self, logit: float) -> None:
        """A key at the first token, whatever the query."""
        self.k[FIRST, -1] = 1.0
        self.q_bias[-1] = logit * D_HEAD**0.5


def _previous(head: _Head) -> None:
    head.clear()
    waves = slice(0, 2 * WAVES)
    # a position's features one step on are a rotation of its own: solved from all positions
    places = torch.arange(POSITIONS)
    step = torch.linalg.lstsq(_waves(places).double(), _waves(places + 1).double()).solution
    head.q[POSITION, waves] = SHARP * D_HEAD**0.5 * torch.eye(2 * WAVES)
    head.k[POSITION, waves] = step.float()
    head.copies(BEFORE, 1.0)


def _duplicate(head: _Head) -> None:
    """Logits: 1 for the same token, −0.75 · cosine of positions (1 for the token itself, else −0.32 to 0.23), 0.505
    for the first token; so an earlier occurrence comes before the first token, and that before all others."""
    head.clear()
    tokens, waves = slice(0, V), slice(V, V + 2 * WAVES)
    sharp = 2 * SHARP
    head.q[TOKEN, tokens] = sharp * D_HEAD**0.5 * torch.eye(V)
    head.k[TOKEN, tokens] = torch.eye(V)
    head.q[POSITION, waves] = -0.75 * sharp * D_HEAD**0.5 * torch.eye(2 * WAVES)
    head.k[POSITION, waves] = torch.eye(2 * WAVES)
    head.rests_on_first(0.505 * sharp)
    head.v[TOKEN, 0], head.v[FIRST, 0], head.o[0, SEEN] = 1.0, -1.0, 1.0


def _follow(head: _Head, only: tuple[str, ...] | None, weight: float) -> None:
    head.clear()
    tokens = slice(0, V)
    head.q[TOKEN, tokens] = SHARP * D_HEAD**0.5 * torch.eye(V)
    head.k[BEFORE, tokens] = torch.eye(V)
    if only is None:
        head.rests_on_first(0.5 * SHARP)
    else:  # a match and of the right kind: 2; resting: 1.5; one of both: 1
        head.k[[WORDS.index(word) for word in only], -2] = 1.0
        head.q_bias[-2] = SHARP * D_HEAD**0.5
        head.rests_on_first(1.5 * SHARP)
    head.copies(PREDICTION, weight)


def _forget_first_token(mlp: Any) -> None:
    """After block 0 the first position holds neither its token nor one before it, so nothing is copied from there."""
    units = slice(0, V), slice(V, 2 * V)
    for place, unit in zip((TOKEN, BEFORE), units, strict=True):
        mlp.c_fc.weight[place, unit] = torch.eye(V)
        mlp.c_fc.weight[FIRST, unit] = 1.0
        mlp.c_fc.bias[unit] = -1.0  # relu(entry + first − 1)
        mlp.c_proj.weight[unit, place] = -torch.eye(V)
