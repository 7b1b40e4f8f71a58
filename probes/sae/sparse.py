"""Sparse codes as flat lists, and the few products that training needs; only the scores have size (rows, features).

With k of m features active, decoding and all gradients cost k/m of a dense product: rows of the weights are gathered
and summed by `embedding_bag`, whose order of summation is fixed, so that results repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """Active codes, sorted by row: code i is `values[i]` of feature `cols[i]` in row `rows[i]`."""

    rows: Tensor  # (codes,) int64, ascending
    cols: Tensor  # (codes,) int64
    values: Tensor  # (codes,)
    n_rows: int

    def keep(self, mask: Tensor) -> Codes:
        return Codes(self.rows[mask], self.cols[mask], self.values[mask], self.n_rows)


def starts(owners: Tensor, n: int) -> Tensor:
    """Where each of n owners' entries begin in a list sorted by owner: (n,)."""
    counts = torch.bincount(owners, minlength=n)
    return counts.cumsum(0) - counts


def weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, begin: Tensor) -> Tensor:
    """Σ weights[i] · table[rows[i]] over each owner's entries, which begin at `begin` (owners,): (owners, width)."""
    if not len(rows):
        return table.new_zeros((len(begin), table.shape[1]))
    return F.embedding_bag(rows, table, begin, mode="sum", per_sample_weights=weights)


def pair_dots(A: Tensor, a: Tensor, B: Tensor, b: Tensor) -> Tensor:
    """A[a[i]] · B[b[i]] for each i: (pairs,), without gathering the rows."""
    if not len(a):
        return A.new_zeros(0)
    # The gradient of a weighted sum for its weights is exactly this; `begin` is only looked at for its length.
    begin = torch.zeros(len(A), dtype=b.dtype, device=b.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(A, B, b, begin, a, 0, -1)


def decode(codes: Codes, decoder: Tensor) -> Tensor:
    """Σ of the active features' decoder rows: (rows, d)."""
    return weighted_sums(decoder, codes.cols, codes.values, starts(codes.rows, codes.n_rows))


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of scores (rows, m), unordered: values and columns, both (rows, k).

    Exact: the k largest lie in the k groups with the largest maxima, which are far fewer to look through.
    """
    n, m = scores.shape
    group = 8
    groups = m // group
    if groups < 3 * k or m < 512 or scores.device.type != "cpu":
        return scores.topk(k, dim=1, sorted=False)
    body = groups * group  # group g holds columns g, g + groups, g + 2 · groups, …
    best = scores[:, :body].unflatten(1, (group, groups)).amax(1).topk(k, dim=1, sorted=False)[1]
    steps = torch.arange(0, body, groups, device=scores.device)
    places = (best[:, :, None] + steps).flatten(1)  # (rows, k · group)
    if body < m:
        rest = torch.arange(body, m, device=scores.device).expand(n, -1)
        places = torch.cat([places, rest], 1)
    values, chosen = scores.gather(1, places).topk(k, dim=1, sorted=False)
    return values, places.gather(1, chosen)


def flat_codes(values: Tensor, cols: Tensor) -> Codes:
    """(rows, k) values and columns as codes."""
    n, k = values.shape
    rows = torch.arange(n, device=values.device).repeat_interleave(k)
    return Codes(rows, cols.reshape(-1), values.reshape(-1), n)


@dataclass(frozen=True)
class Sums:
    """Squared error summed over rows and dimensions for each prefix, the last error, and the four gradients."""

    squares: Tensor  # (prefixes,)
    error: Tensor  # (rows, d), reconstruction − target
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor


def reconstruction_gradients(
    codes: Codes,
    x: Tensor,
    target: Tensor,
    decoder: Tensor,
    bias: Tensor | None,
    prefixes: Sequence[int],
) -> Sums:
    """Gradients of L = 1/P Σ_p mean_rows ‖target − bias − Σ_{features < p} z · decoder‖² for z = x·w + b.

    x: (rows, d) is what the codes were computed from. `prefixes` ascend, and the last is the number of features; one
    prefix is the plain autoencoder. A code of exactly zero is one that a ReLU has cut off: no gradient passes through
    it. Written out by hand: autograd would build dense (rows, features) gradients.
    """
    n, m, parts = len(x), len(decoder), len(prefixes)
    owner, order = codes.rows, None
    if parts > 1:
        bounds = torch.tensor(prefixes[:-1], device=x.device)
        owner = codes.rows + n * torch.bucketize(codes.cols, bounds, right=True)
        order = owner.argsort(stable=True)
    inner = codes if order is None else _ordered(codes, order)
    owner = owner if order is None else owner[order]
    pieces = weighted_sums(decoder, inner.cols, inner.values, starts(owner, parts * n))
    error = pieces.view(parts, n, -1)
    if parts > 1:
        error = error.cumsum(0)
    if bias is not None:
        error.add_(bias)
    error.sub_(target)
    squares = torch.stack([torch.linalg.vector_norm(one).square() for one in error])
    pull = error * (2 / (n * parts))
    bias_gradient = pull.sum((0, 1))
    if parts > 1:  # a code takes part in its own prefix and in all longer ones
        pull = pull.flip(0).cumsum(0).flip(0)
    pull = pull.reshape(parts * n, -1)
    dz = pair_dots(pull, owner, decoder, inner.cols) * (inner.values != 0)
    by_feature = inner.cols.argsort(stable=True)
    begin = starts(inner.cols, m)
    ones = x.new_ones((n, 1))
    rows, dz_sorted = inner.rows[by_feature], dz[by_feature]
    return Sums(
        squares,
        error[-1],
        weighted_sums(x, rows, dz_sorted, begin),
        weighted_sums(ones, rows, dz_sorted, begin)[:, 0],
        weighted_sums(pull, owner[by_feature], inner.values[by_feature], begin),
        bias_gradient,
    )


def _ordered(codes: Codes, order: Tensor) -> Codes:
    return Codes(codes.rows[order], codes.cols[order], codes.values[order], codes.n_rows)
