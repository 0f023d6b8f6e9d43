"""Contrastive losses on embeddings."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .distributed import (
    gather,
    gather_with_grad,
    rank,
    reduce_mean,
    world_size,
)
from .precision import at_least_float32

# Two ways of computing one product differ by so many units in the last place.
_ROUNDING = 64


def _is_nearest(positive: Tensor, hardest: Tensor) -> Tensor:
    """Whether the own key is nearer than every other one, beyond rounding.

    A tie is no hit: where all embeddings are alike nothing is found.

    Args:
        positive (Tensor): Product with the own key.
        hardest (Tensor): Largest product with another one.

    Shape: any, kept; of the dtype of ``positive``.
    """
    rounding = _ROUNDING * torch.finfo(positive.dtype).eps * positive.abs()
    return (positive - hardest > rounding).to(positive.dtype)


class _QueueCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of [own key | queue], target = own key.

    The gradients are formed in the forward pass, while the softmax is at
    hand. Only (N, D) tensors are kept for the backward pass, so that the
    caller may overwrite the queue right after the loss: no copy of the queue
    is needed, and no (N, K) tensor outlives the call.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        temperature: float,
        masked: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        positive = (query * key).sum(dim=1, keepdim=True) / temperature
        negative = (query @ queue.T).div_(temperature)  # (N, K)
        if masked is not None:
            negative.masked_fill_(masked, float('-inf'))
        hardest = negative.amax(dim=1, keepdim=True)
        peak = torch.maximum(positive, hardest)
        negative.sub_(peak).exp_()
        positive_share = (positive - peak).exp()
        total = positive_share + negative.sum(dim=1, keepdim=True)
        loss = (total.log() + (peak - positive)).mean()
        top1 = _is_nearest(positive, hardest).mean()
        # d loss / d logits = (softmax - one-hot) / N
        factor = 1 / (temperature * len(query))
        residual = positive_share / total - 1
        if ctx.needs_input_grad[0]:
            grad_query = torch.addmm(residual * key, negative.div_(total), queue).mul_(
                factor
            )
        else:
            grad_query = None
        grad_key = residual * query * factor if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(grad_query, grad_key)
        ctx.mark_non_differentiable(top1)
        return loss, top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = (
            None if grad is None else grad * grad_loss for grad in ctx.saved_tensors
        )
        return (*grads, None, None, None)


def _in_batch_cross_entropy(
    query: Tensor, key: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the rows of ``query @ key.T``, target = own."""
    logits = query @ key.T / temperature  # (N, N)
    target = torch.arange(len(query), device=query.device)
    loss = F.cross_entropy(logits, target)
    with torch.no_grad():
        others = logits.scatter(1, target[:, None], -torch.inf)
        top1 = _is_nearest(logits.diagonal(), others.amax(dim=1)).mean()
    return loss, top1


def unit_rows(features: Tensor) -> Tensor:
    """L2-normalises every row, in float32 or better, whatever autocast says.

    Shape: ``(..., D)``, kept.
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(at_least_float32(features), dim=-1)


def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = None,
    temperature: float = 0.2,
    return_top1: bool = False,
    masked: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross-entropy of finding the own key among negatives.

    Method of `Representation Learning with Contrastive Predictive Coding
    <https://arxiv.org/abs/1807.03748>`_ in the form of `Momentum Contrast
    <https://arxiv.org/abs/1911.05722>`_, eq. (1), averaged over the batch:

    .. math::
        L = -\frac1N \sum_i \log \frac{\exp(q_i \cdot k_i / T)}
            {\exp(q_i \cdot k_i / T) + \sum_j \exp(q_i \cdot n_j / T)}

    The negatives :math:`n_j` are the rows of ``queue``, or, without a queue,
    the keys of the other samples of the batch. All is computed in float32
    (float64 stays float64), whatever autocast says. The inputs are used as
    they are: normalise them before (:func:`unit_rows`). With a queue the loss
    cannot be differentiated twice, and the queue may be overwritten before
    the backward pass.

    Args:
        query (Tensor): One row per sample.
        key (Tensor): The matching rows; gradient reaches them too unless
            they are detached.
        queue (Tensor, optional): Rows of negatives shared by all samples,
            constants. Defaults to None.
        temperature (float): Divisor of the dot products. Defaults to 0.2.
        return_top1 (bool): Whether to return also the share (0-1) of samples
            whose own key has the largest dot product; ties are no hits. Defaults
            to False.
        masked (Tensor, optional): Rows of the queue that are no negatives of a
            query, such as keys of the same patient. Defaults to None.

    Shape: query, key ``(N, D)``; queue ``(K, D)``; masked ``(N, K)``, bool. Returns a
        scalar, or two.

    Raises:
        ValueError: When shapes do not fit or temperature is not positive.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            'query and key must both be (N, D), got '
            f'{tuple(query.shape)} and {tuple(key.shape)}'
        )
    if queue is not None and (queue.ndim != 2 or queue.shape[1] != query.shape[1]):
        raise ValueError(
            f'queue must be (K, {query.shape[1]}) rows like the queries, got '
            f'{tuple(queue.shape)}'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    if masked is not None:
        wanted = None if queue is None else (len(query), len(queue))
        if tuple(masked.shape) != wanted:
            raise ValueError(
                f'masked must be (N, K) = {wanted} of a queue, got '
                f'{tuple(masked.shape)}'
            )
    with torch.autocast(query.device.type, enabled=False):
        query = at_least_float32(query)
        key = key.to(query.dtype)
        if queue is None:
            loss, top1 = _in_batch_cross_entropy(query, key, temperature)
        else:
            loss, top1 = _QueueCrossEntropy.apply(
                query, key, queue.detach().to(query.dtype), temperature, masked
            )
    return (loss, top1) if return_top1 else loss


def nt_xent(
    view_a: Tensor,
    view_b: Tensor,
    temperature: float = 0.1,
    return_top1: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross-entropy of finding the other view among all other embeddings.

    The normalised, temperature-scaled cross-entropy of `A Simple Framework
    for Contrastive Learning of Visual Representations
    <https://arxiv.org/abs/2002.05709>`_, eq. (1). Of the :math:`2N`
    embeddings :math:`z` of both views, scaled to unit length, each has one
    partner :math:`p(i)` and :math:`2N - 2` negatives:

    .. math::
        L = -\frac{1}{2N} \sum_i \log \frac{\exp(z_i \cdot z_{p(i)} / T)}
            {\sum_{j \ne i} \exp(z_i \cdot z_j / T)}

    N counts the samples of all processes: the embeddings of the others are
    negatives, too, and get their gradient. A process computes the mean over
    its own rows, so the loss of the batch is the mean over the processes. All
    is computed in float32 (float64 stays float64), whatever autocast says.

    Args:
        view_a (Tensor): Embeddings of the first view, not normalised.
        view_b (Tensor): Embeddings of the second view of the same samples.
        temperature (float): Divisor of the cosines. Defaults to 0.1.
        return_top1 (bool): Whether to return also the share (0-1) of
            embeddings nearest to their partner; ties are no hits. Defaults to
            False.

    Shape: ``(N, D)`` twice, the same N on all processes. Returns a scalar, or
        two; :math:`\log(2N - 1)` for a guess.

    Raises:
        ValueError: When shapes do not fit, there is one sample only, or
            temperature is not positive.
    """
    if view_a.ndim != 2 or view_a.shape != view_b.shape:
        raise ValueError(
            'both views must be (N, D), got '
            f'{tuple(view_a.shape)} and {tuple(view_b.shape)}'
        )
    samples = len(view_a)
    if samples * world_size() < 2:
        raise ValueError(
            'one sample has no negatives: nt_xent needs two samples or more'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    with torch.autocast(view_a.device.type, enabled=False):
        view_a, view_b = unit_rows(view_a), unit_rows(view_b)
        everyone = torch.cat([gather_with_grad(view_a), gather_with_grad(view_b)])
        own = torch.arange(samples, device=view_a.device) + rank() * samples
        own = torch.cat([own, own + len(everyone) // 2])
        logits = torch.cat([view_a, view_b]) @ everyone.T / temperature
        # No row finds itself.
        logits = logits.scatter(1, own[:, None], -torch.inf)
        partner = own.roll(samples)
        loss = F.cross_entropy(logits, partner)
        if not return_top1:
            return loss
        with torch.no_grad():
            positive = logits.gather(1, partner[:, None])[:, 0]
            others = logits.scatter(1, partner[:, None], -torch.inf)
            return loss, _is_nearest(positive, others.amax(dim=1)).mean()


def local_info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float = 0.2,
    valid: Tensor | None = None,
    negatives: str = 'image',
    queue: Tensor | None = None,
    return_logs: bool = False,
    patients: Tensor | None = None,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Cross-entropy of finding the own region among regions.

    Row-wise InfoNCE on regions, after `Contrastive learning of global and
    local features for medical image segmentation with limited annotations
    <https://arxiv.org/abs/2006.10511>`_: region :math:`i` of one view is
    found among the regions :math:`j` of another view of image :math:`n`,

    .. math::
        L = -\frac1{|V|} \sum_{(n, i) \in V} \log
            \frac{\exp(\hat q_{ni} \cdot \hat k_{ni} / T)}
            {\sum_j \exp(\hat q_{ni} \cdot \hat k_{nj} / T)}

    with rows brought to unit length. :math:`V` are the valid regions that
    have a negative at all, of all processes: the mean of the loss over the
    processes is that of one process with the joint batch. All is computed in
    float32 (float64 stays float64), whatever autocast says.

    Args:
        query (Tensor): Regions of one view, not normalised.
        key (Tensor): Their counterparts in the other view, not normalised;
            gradient reaches them too unless they are detached.
        temperature (float): Divisor of the cosines. Defaults to 0.2.
        valid (Tensor, optional): Which regions count, as rows and as
            negatives; those that do not may hold anything, NaN included.
            Defaults to all.
        negatives (str): ``'image'``: the image's other regions; ``'batch'``:
            those of the other images of all processes as well. Defaults to
            'image'.
        queue (Tensor, optional): Rows of further negatives, constants, not
            normalised. Defaults to None.
        return_logs (bool): Whether to return also ``chance_level`` (the loss
            of a guess; log R if all regions are valid), ``top1`` (share 0-1
            of the rows nearest to their own region, ties being no hits) and
            ``valid_share`` (of the regions that count as rows, 0-1). Defaults to
            False.
        patients (Tensor, optional): Number of each image's patient, for
            ``negatives='batch'``: regions of other images of the same patient are
            then no negatives. Defaults to None.

    Shape: query, key ``(N, R, D)``; valid ``(N, R)`` bool; queue ``(K, D)``;
        patients ``(N,)``. Returns a scalar, 0 with a graph if no region counts;
        or scalar and dict.

    Raises:
        ValueError: When shapes do not fit, there are no negatives, or a
            setting is wrong.
    """
    _check_regions(query, key, temperature, valid, negatives, queue, patients)
    with torch.autocast(query.device.type, enabled=False):
        if valid is None:
            valid = query.new_ones(query.shape[:2], dtype=torch.bool)
        else:
            query, key = (
                rows.masked_fill(~valid[..., None], 0) for rows in (query, key)
            )
        query, key = unit_rows(query), unit_rows(key)
        row, column, offset = valid, valid, 0
        if negatives == 'batch':
            query, key, row, column = _joined(query, key, valid)
            offset = rank() * query.shape[1]
        logits = query @ key.mT / temperature  # (N, R, R), (1, N R, all)
        own = torch.arange(query.shape[1], device=query.device)
        target = torch.zeros(logits.shape[1:], dtype=torch.bool, device=query.device)
        target[own, own + offset] = True
        candidates = column[:, None] | target
        if patients is not None:
            candidates &= ~_same_patient(patients, len(own) // len(patients))
        positive = logits[:, own, own + offset]
        logits = logits.masked_fill(~candidates, -torch.inf)
        choices = candidates.sum(dim=-1)
        if queue is not None:
            rows = unit_rows(queue.detach()).to(query.dtype)
            logits = torch.cat([logits, query @ rows.T / temperature], dim=-1)
            choices = choices + len(queue)
        counts = row & (choices > 1)
        mean = _MeanOfRows(counts)
        loss = mean(logits.logsumexp(dim=-1) - positive)
        if not return_logs:
            return loss
        with torch.no_grad():
            others = logits.clone()
            others[:, own, own + offset] = -torch.inf
            logs = dict(
                chance_level=mean(choices.to(loss.dtype).log()),
                top1=mean(_is_nearest(positive, others.amax(dim=-1)).to(loss.dtype)),
                valid_share=counts.to(loss.dtype).mean(),
            )
    return loss, logs


def _joined(query: Tensor, key: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
    """Regions of all images as those of one, keys those of all processes.

    Shape: query, key ``(N, R, D)``, valid ``(N, R)``. Returns queries ``(1, N R,
        D)``, keys ``(1, all, D)`` and which of either count.
    """
    width = query.shape[-1]
    return (
        query.reshape(1, -1, width),
        gather_with_grad(key).reshape(1, -1, width),
        valid.reshape(1, -1),
        # As bytes: not every backend gathers bool.
        gather(valid.byte()).bool().reshape(1, -1),
    )


def _same_patient(patients: Tensor, regions: int) -> Tensor:
    """Which joined keys are of another image of the query's patient.

    Shape: patients ``(N,)``; returns ``(N R, all)``, see :func:`_joined`.
    """
    everyone = gather(patients)
    same = patients[:, None] == everyone
    own = torch.arange(len(patients), device=patients.device)
    same[own, own + rank() * len(patients)] = False
    return same.repeat_interleave(regions, 0).repeat_interleave(regions, 1)


def _check_regions(
    query: Tensor,
    key: Tensor,
    temperature: float,
    valid: Tensor | None,
    negatives: str,
    queue: Tensor | None,
    patients: Tensor | None,
) -> None:
    if query.ndim != 3 or query.shape != key.shape:
        raise ValueError(
            'query and key must both be (N, R, D), got '
            f'{tuple(query.shape)} and {tuple(key.shape)}'
        )
    if valid is not None and (
        valid.shape != query.shape[:2] or valid.dtype != torch.bool
    ):
        raise ValueError(
            f'valid must be {tuple(query.shape[:2])} of bool like the '
            f'regions, got {tuple(valid.shape)} of {valid.dtype}'
        )
    if queue is not None and (queue.ndim != 2 or queue.shape[1] != query.shape[2]):
        raise ValueError(
            f'queue must be (K, {query.shape[2]}) rows like the regions, got '
            f'{tuple(queue.shape)}'
        )
    if negatives not in ('image', 'batch'):
        raise ValueError(f"negatives must be 'image' or 'batch', got {negatives!r}")
    if negatives == 'image' and queue is None and query.shape[1] < 2:
        raise ValueError(
            'one region per image has no other one as a negative, got '
            f"{tuple(query.shape)}; use more regions, negatives='batch' or a "
            'queue'
        )
    if patients is not None and negatives != 'batch':
        raise ValueError(
            "patients are for negatives='batch'; those of 'image' are of one patient"
        )
    if patients is not None and patients.shape != query.shape[:1]:
        raise ValueError(
            f'patients must be ({len(query)},), one per image, got '
            f'{tuple(patients.shape)}'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')


class _MeanOfRows:
    """Averages over the chosen rows of all processes.

    Divides by the mean number of rows per process, so that the mean over the
    processes is right also where they have unlike numbers of rows.
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen
        number = reduce_mean(chosen.sum().to(torch.float32))
        self.number = torch.where(number > 0, number, 1)

    def __call__(self, values: Tensor) -> Tensor:
        total = torch.where(self.chosen, values, 0).sum()
        return total / self.number.to(values.dtype)
