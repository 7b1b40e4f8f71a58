"""Singular values and directions of products of thin matrices, without ever forming the wide product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from probes.errors import unknown_name
from probes.heads.weights.find import HeadWeights

Circuit = Literal["QK", "OV"]
CIRCUITS: tuple[Circuit, ...] = ("QK", "OV")


@dataclass(frozen=True)
class Factored:
    """left · diag(values) · rightᵀ per head: left and right (head, d_model, r), values (head, r), largest first."""

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def transposed(self) -> Factored:
        return Factored(self.right, self.values, self.left)

    @property
    def norms(self) -> Tensor:
        """Frobenius norms (head,)."""
        return self.values.norm(dim=-1)


def factor(A: Tensor, B: Tensor) -> Factored:
    """The singular value decomposition of A Bᵀ for thin A and B (head, d_model, d_head), in float64.

    >>> A, B = torch.eye(4)[None, :, :2], 3 * torch.eye(4)[None, :, :2]
    >>> factor(A, B).values
    tensor([[3., 3.]], dtype=torch.float64)
    """
    left, small_left = torch.linalg.qr(A.double())
    right, small_right = torch.linalg.qr(B.double())
    u, values, vh = torch.linalg.svd(small_left @ small_right.transpose(-1, -2))
    return Factored(left @ u, values, right @ vh.transpose(-1, -2))


def circuit(weights: HeadWeights, name: Circuit) -> Factored:
    """W_Q W_Kᵀ ("QK") or W_V W_O ("OV") of every head of a block, factored.

    `DoesNotApply` where a part of it could not be verified.
    """
    if name == "QK":
        return factor(weights.W_Q, weights.W_K)
    if name == "OV":
        return factor(weights.W_V, weights.W_O.transpose(-1, -2))
    raise unknown_name("circuit", name, CIRCUITS)
