import torch
from torch import nn

from medssl_mm.models.utils import FrozenBackbone


class Host(nn.Module):
    """Backbone and neck, as the hosts call them."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.neck = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    def extract_feat(self, inputs, scale=1.0):
        return scale * self.neck(self.backbone(inputs))


class Frozen(FrozenBackbone, Host):
    pass


def test_only_the_neck_learns():
    model = Frozen().train()
    state = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.extract_feat(torch.randn(5, 3), scale=2.0).square().sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.neck.parameters())
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert model.neck[1].num_batches_tracked == 1


def test_mode_and_arguments_are_the_hosts():
    model = Frozen()
    assert model.train() is model and model.training
    assert model.neck.training and not model.backbone.training
    assert not model.eval().neck.training
    inputs = torch.randn(2, 3, requires_grad=True)
    torch.testing.assert_close(
        model.extract_feat(inputs, scale=3.0), 3 * model.extract_feat(inputs)
    )
    model.extract_feat(inputs).sum().backward()
    assert inputs.grad is None
