"""Contrastive losses on embeddings."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _QueueCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of [own key | queue], target = own key.

    The gradients are formed in the forward pass, while the softmax is at
    hand. Only (N, D) tensors are kept for the backward pass, so that the
    caller may overwrite the queue right after the loss: no copy of the queue
    is needed, and no (N, K) tensor outlives the call.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, queue: Tensor,
                temperature: float) -> tuple[Tensor, Tensor]:
        positive = (query * key).sum(dim=1, keepdim=True) / temperature
        negative = (query @ queue.T).div_(temperature)  # (N, K)
        hardest = negative.amax(dim=1, keepdim=True)
        peak = torch.maximum(positive, hardest)
        negative.sub_(peak).exp_()
        positive_share = (positive - peak).exp()
        total = positive_share + negative.sum(dim=1, keepdim=True)
        loss = (total.log() + (peak - positive)).mean()
        top1 = (positive >= hardest).to(query.dtype).mean()
        # d loss / d logits = (softmax - one-hot) / N
        factor = 1 / (temperature * len(query))
        residual = positive_share / total - 1
        if ctx.needs_input_grad[0]:
            grad_query = torch.addmm(
                residual * key, negative.div_(total), queue).mul_(factor)
        else:
            grad_query = None
        grad_key = residual * query * factor \
            if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(grad_query, grad_key)
        ctx.mark_non_differentiable(top1)
        return loss, top1

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, _) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_loss
                 for grad in ctx.saved_tensors)
        return (*grads, None, None)


def _in_batch_cross_entropy(query: Tensor, key: Tensor,
                            temperature: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the rows of ``query @ key.T``, target = own."""
    logits = query @ key.T / temperature  # (N, N)
    target = torch.arange(len(query), device=query.device)
    loss = F.cross_entropy(logits, target)
    top1 = (logits.diagonal() >= logits.amax(dim=1)).to(logits.dtype).mean()
    return loss, top1.detach()


def unit_rows(features: Tensor) -> Tensor:
    """L2-normalises every row, in float32 or better, whatever autocast says.

    Shape: ``(..., D)``, kept.
    """
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, torch.float32)
        return F.normalize(features.to(dtype), dim=-1)


def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = None,
    temperature: float = 0.2,
    return_top1: bool = False,
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
            whose own key has the largest dot product. Defaults to False.

    Shape: query, key ``(N, D)``; queue ``(K, D)``. Returns a scalar, or two.

    Raises:
        ValueError: When shapes do not fit or temperature is not positive.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            'query and key must both be (N, D), got '
            f'{tuple(query.shape)} and {tuple(key.shape)}')
    if queue is not None and (queue.ndim != 2
                              or queue.shape[1] != query.shape[1]):
        raise ValueError(
            f'queue must be (K, {query.shape[1]}) rows like the queries, got '
            f'{tuple(queue.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        query, key = query.to(dtype), key.to(dtype)
        if queue is None:
            loss, top1 = _in_batch_cross_entropy(query, key, temperature)
        else:
            loss, top1 = _QueueCrossEntropy.apply(
                query, key, queue.detach().to(dtype), temperature)
    return (loss, top1) if return_top1 else loss
