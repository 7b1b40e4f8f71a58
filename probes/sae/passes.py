"""What a language model says of each token of texts, once as it is and again under edits of one place.

The second and further passes over a batch begin at the edited place, so that many edits of one late place cost little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from probes.capture.batching import Batch
from probes.capture.hooks import run_backbone
from probes.capture.replay import Replay, keeping, starting_at
from probes.models.completions import LOGITS_AT_ONCE, head_logits
from probes.models.trace import first_tensor, with_first_tensor

if TYPE_CHECKING:
    from probes.models import Model

Edit = AbstractContextManager[Any]
Read = Callable[[Tensor, slice], Tensor]  # logits (m, vocabulary) of some scored tokens -> (m, …)


@dataclass(frozen=True, eq=False)
class Scored:
    """The tokens of a batch that are predicted: number `token[i]` of text `row[i]`, which is `target[i]`; all (m,).

    Not scored are what the tokenizer puts around a text, padding, and each text's first token, before which nothing
    stands.
    """

    row: Tensor
    token: Tensor
    target: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Scored:
        assert batch.keep is not None
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
        scored = torch.zeros_like(mask)
        scored[:, 1:] = batch.keep[:, 1:] & mask[:, :-1]
        row, token = scored.nonzero(as_tuple=True)
        return cls(row, token, ids[row, token])

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, eq=False)
class Passes:
    """One batch of texts, with what block `number` − 1 gave in the pass of the model as it is.

    `clean` is that pass's last hidden state (batch, token, d).
    """

    model: Model
    batch: Batch
    scored: Scored
    clean: Tensor
    _output: Any
    _replay: Replay | None

    @classmethod
    def of(cls, model: Model, batch: Batch, number: int, look: Edit | None = None) -> Passes:
        """Run the model as it is; `look` is a context for that pass, which changes nothing.

        `number` is the layer or block where later passes begin.
        """
        kept: list[Replay] = []
        with torch.inference_mode(), contextlib.ExitStack() as stack:
            if number:
                kept = stack.enter_context(keeping(model, number))
            if look is not None:
                stack.enter_context(look)
            output = run_backbone(model, _inputs(model, batch))
        return cls(model, batch, Scored.of(batch), _last(output), output, kept[0] if kept else None)

    def rows(self, rows: Tensor) -> Passes:
        """Only some of the texts: `rows` (n,) are numbers in the batch, ascending."""
        n = len(self.batch.rows)
        numbers = rows.cpu().numpy()
        inputs = {name: held[rows] for name, held in self.batch.inputs.items()}
        keep = None if self.batch.keep is None else self.batch.keep[rows]
        batch = Batch(self.batch.rows[numbers], inputs, keep)
        replay = self._replay
        if replay is not None:
            replay = Replay(replay.layer, _part(replay.output, rows.to(self.model.device), n))
        clean = self.clean[rows.to(self.model.device)]
        return Passes(self.model, batch, Scored.of(batch), clean, self._output, replay)

    def under(self, edit: Edit) -> Tensor:
        """Last hidden state (batch, token, d) of a pass under `edit`, which begins at the place."""
        with torch.inference_mode(), contextlib.ExitStack() as stack:
            if self._replay is not None:
                stack.enter_context(starting_at(self.model, self._replay))
            stack.enter_context(edit)
            return _last(run_backbone(self.model, _inputs(self.model, self.batch)))

    def read(self, last: Tensor, what: Read, chosen: Tensor | None = None) -> Tensor:
        """`what(logits, which)` of the scored tokens (those of `chosen` (m,), if given), joined: (m, …) on the CPU.

        `last` is a last hidden state; a token's logits are those after the token before it.
        """
        row, token = self.scored.row, self.scored.token - 1
        if chosen is not None:
            row, token = row[chosen], token[chosen]
        states = last[row.to(last.device), token.to(last.device)]
        step = max(1, LOGITS_AT_ONCE // vocabulary(self.model))
        found = [states.new_zeros(0).cpu()]
        for start in range(0, len(states), step):
            which = slice(start, min(len(states), start + step))
            logits = head_logits(self.model, self._output, states[which]).float()
            found.append(what(logits, which).cpu())
        return torch.cat(found[1:] or found)

    def logprobs(self, last: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Log-probability (natural) of the scored tokens, (m,) float64."""
        target = self.scored.target if chosen is None else self.scored.target[chosen]

        def read(logits: Tensor, which: slice) -> Tensor:
            own = logits.gather(1, target[which, None].to(logits.device))[:, 0]
            return (own - logits.logsumexp(1)).double()

        return self.read(last, read, chosen)


def vocabulary(model: Model) -> int:
    return int(cast("Any", model.hf_model).get_input_embeddings().weight.shape[0])


def _inputs(model: Model, batch: Batch) -> dict[str, Any]:
    ids, mask = (batch.inputs[name].to(model.device) for name in ("input_ids", "attention_mask"))
    return model.forward_inputs(ids, mask)


def _last(output: Any) -> Tensor:
    found = first_tensor(output)
    assert found is not None
    return found


def _part(output: Any, rows: Tensor, n: int) -> Any:
    """Some rows of what a block returned for a batch of n."""
    if isinstance(output, Tensor):
        return output[rows] if output.ndim and len(output) == n else output
    if isinstance(output, tuple | list):
        members = cast("list[Any]", output)
        return type(output)(_part(member, rows, n) for member in members)
    found = first_tensor(output)
    return output if found is None else with_first_tensor(output, found[rows])
