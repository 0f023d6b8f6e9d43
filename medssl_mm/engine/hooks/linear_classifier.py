"""A linear classifier with an optimizer of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from medssl_mm.functional.distributed import reduce_mean
from medssl_mm.functional.linear_probe import weighted_loss_sum


class LinearClassifier:
    """Dropout and a linear layer on features, with Adam.

    Args:
        num_features (int): Length of the features.
        num_classes (int): Number of classes.
        multi_label (bool): Whether an image may have any number of them.
        weights (Tensor, optional): Of the classes, see
            :func:`medssl_mm.functional.linear_probe.weighted_loss_sum`.
        dropout (float): Share of the features that a step leaves out.
        lr (float): Learning rate.
        weight_decay (float): Added to the gradient.
        max_grad_norm (float, optional): Length that a gradient is shortened to,
            where it is longer. None: as it is.
        seed (int): Of the start; the global generator is seeded.
        device (torch.device): Where it is.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        multi_label: bool,
        weights: Tensor | None,
        dropout: float,
        lr: float,
        weight_decay: float,
        max_grad_norm: float | None,
        seed: int,
        device: torch.device,
    ) -> None:
        torch.manual_seed(seed)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(num_features, num_classes)
        ).to(device)
        self.optimizer = torch.optim.Adam(
            self.head.parameters(), lr, weight_decay=weight_decay
        )
        self.max_grad_norm = max_grad_norm
        self.multi_label = multi_label
        self.weights = weights

    def learn(
        self,
        features: Tensor,
        targets: Tensor,
        average: Callable[[Tensor], Tensor] = reduce_mean,
    ) -> float:
        """Do one step on a batch, which is shared out among the processes.

        All get the gradient of the joint batch. No step is made when its loss is
        not finite.

        Args:
            features (Tensor): Of the own images; they get no gradient.
            targets (Tensor): Whether an image has a class.
            average (Callable): From a tensor to its mean over the processes;
                the identity where each learns alone. Defaults to the former.

        Shape: features ``(N, D)``, targets ``(N, classes)``. Returns the loss of
            the joint batch.
        """
        self.head.train()
        logits = self.head(features.detach())
        total, weight = weighted_loss_sum(
            logits, targets, self.multi_label, self.weights
        )
        # With weights the joint batch's mean is not that of the processes' means.
        loss = total / average(weight)
        parameters = list(self.head.parameters())
        own = torch.autograd.grad(loss, parameters)
        # The loss, too, in one message to the other processes.
        parts = [loss.detach()[None], *(gradient.flatten() for gradient in own)]
        joint = average(torch.cat(parts)).split([part.numel() for part in parts])
        value = float(joint[0])
        for parameter, gradient in zip(parameters, joint[1:]):
            parameter.grad = gradient.view_as(parameter)
        if math.isfinite(value):
            if self.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.optimizer.step()
        return value

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, without dropout.

        Shape: ``(N, D)`` to ``(N, classes)``.
        """
        self.head.eval()
        return self.head(features)

    @torch.no_grad()
    def evaluate(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the probabilities and the loss of a whole set.

        Shape: logits, targets ``(N, classes)``. Returns ``(N, classes)`` and a
            number.
        """
        weights = None if self.weights is None else self.weights.to(logits.device)
        total, weight = weighted_loss_sum(logits, targets, self.multi_label, weights)
        found = logits.sigmoid() if self.multi_label else logits.softmax(1)
        return found, float(total / weight)

    def state_dict(self) -> dict:
        """Return the states of layer and optimizer."""
        return dict(head=self.head.state_dict(), optimizer=self.optimizer.state_dict())

    def load_state_dict(self, state: dict) -> None:
        """Take the states of layer and optimizer."""
        self.head.load_state_dict(state['head'])
        self.optimizer.load_state_dict(state['optimizer'])
