"""A backbone that is a fixed feature extractor."""

from typing import Any

from torch import Tensor, nn


class FrozenBackbone(nn.Module):
    """What a model of a host needs to leave its backbone untouched.

    To be named before the host's class. The backbone stays in evaluation
    mode, its parameters ask for no gradient and it runs without an autograd
    graph, so neither its weights nor its batch normalisation buffers change
    during training and a step costs little more than one forward pass. All
    other parts, a neck included, are trained.

    Args:
        *args: Arguments of the host's class.
        **kwargs: The same.
    """

    backbone: nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backbone.requires_grad_(False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> 'FrozenBackbone':
        """Set the mode of everything but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def extract_feat(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Compute features without an autograd graph in the backbone.

        Shape: inputs ``(N, C, H, W)``. Returns what the host's class does.
        """
        # No tensor in the backbone asks for a gradient then, so it builds no
        # graph; a neck, which the host calls here too, still does.
        host: Any = super()
        return host.extract_feat(inputs.detach(), *args, **kwargs)
