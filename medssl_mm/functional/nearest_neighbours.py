"""Classification by the nearest neighbours in feature space.

The protocol of `Unsupervised Feature Learning via Non-Parametric Instance
Discrimination <https://arxiv.org/abs/1805.01978>`_, section 3.4: cosine
similarity, and every neighbour votes with weight exp(similarity /
temperature).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32


@torch.no_grad()
def cosine_neighbours(
    queries: Tensor, bank: Tensor, k: int, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """Find the k rows of a bank that are most similar to each query.

    Computes ``chunk`` by ``chunk`` similarities at a time, so the memory does
    not grow with the product of the two sets. A row without length is similar
    to nothing: 0.

    Args:
        queries (Tensor): Features, of any length.
        bank (Tensor): Features, of any length.
        k (int): Number of neighbours, at most the rows of the bank.
        chunk (int): Rows of either at a time. Defaults to 4096.

    Shape: queries ``(Q, D)``, bank ``(N, D)``. Returns cosine similarities
        ``(Q, k)``, the largest first, and rows of the bank ``(Q, k)``, int64.

    Raises:
        ValueError: Shapes do not fit, or k is out of range.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(
            'queries and bank must be (Q, D) and (N, D), got '
            f'{tuple(queries.shape)} and {tuple(bank.shape)}'
        )
    if not 1 <= k <= len(bank):
        raise ValueError(f'k={k} must be from 1 to the {len(bank)} rows of the bank')
    if chunk < 1:
        raise ValueError(f'chunk={chunk} must be 1 or more')
    unit_bank = F.normalize(at_least_float32(bank), dim=1)
    unit_queries = F.normalize(at_least_float32(queries), dim=1)
    found = [_nearest(part, unit_bank, k, chunk) for part in unit_queries.split(chunk)]
    if not found:
        empty = queries.new_empty(0, k)
        return at_least_float32(empty), empty.long()
    similarities, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
    return similarities, rows


def _nearest(
    queries: Tensor, bank: Tensor, k: int, chunk: int
) -> tuple[Tensor, Tensor]:
    best = queries.new_empty(len(queries), 0)
    rows = torch.empty_like(best, dtype=torch.int64)
    for first in range(0, len(bank), chunk):
        similarities = queries @ bank[first : first + chunk].T
        top, place = similarities.topk(min(k, similarities.shape[1]), dim=1)
        best = torch.cat([best, top], dim=1)
        rows = torch.cat([rows, place + first], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, kept)
    return best, rows


@torch.no_grad()
def neighbour_votes(
    similarities: Tensor, rows: Tensor, targets: Tensor, temperature: float = 0.07
) -> Tensor:
    r"""Let neighbours vote for their classes.

    .. math:: p_c = \frac{\sum_i e^{s_i / T} y_{ic}}{\sum_i e^{s_i / T}}

    With exclusive classes the votes of an image add up to 1; with several
    labels at once each is the weighted share of neighbours that have the class.

    Args:
        similarities (Tensor): Of the neighbours, as of
            :func:`cosine_neighbours`.
        rows (Tensor): Which rows of the bank they are.
        targets (Tensor): Whether a row of the bank has a class.
        temperature (float): T, above 0. Defaults to 0.07.

    Shape: similarities, rows ``(Q, k)``; targets ``(N, C)``, bool or 0/1.
        Returns ``(Q, C)``, 0-1.

    Raises:
        ValueError: The temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be above 0, got {temperature}')
    # Subtracts the largest exponent, which a small temperature makes infinite.
    weights = (similarities / temperature).softmax(dim=1)
    return torch.einsum('qk,qkc->qc', weights, targets.to(weights.dtype)[rows])


def nearest_neighbour_probabilities(
    queries: Tensor,
    bank: Tensor,
    targets: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 4096,
) -> Tensor:
    """Probabilities of the classes of each query by its nearest neighbours.

    Args:
        queries (Tensor): Features, of any length.
        bank (Tensor): Features whose classes are known.
        targets (Tensor): Whether a row of the bank has a class.
        k (int): Number of neighbours, at most the rows of the bank. Defaults
            to 20.
        temperature (float): See :func:`neighbour_votes`. Defaults to 0.07.
        chunk (int): See :func:`cosine_neighbours`. Defaults to 4096.

    Shape: queries ``(Q, D)``, bank ``(N, D)``, targets ``(N, C)``. Returns
        ``(Q, C)``, 0-1.
    """
    found = at_least_float32(queries.new_empty(len(queries), targets.shape[1]))
    for first in range(0, len(queries), chunk):
        part = slice(first, first + chunk)
        near = cosine_neighbours(queries[part], bank, k, chunk)
        found[part] = neighbour_votes(*near, targets, temperature)
    return found
