import pytest
import torch

from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.legacy.iter_norm import IterNorm, ReleaseDecorrelation
from medssl_mm.registry import MODELS
from tests.models.heads.test_decorrelation_head import close, loss_of, maps


def resnet50(**changes):
    return MODELS.build(
        dict(
            type='mmselfsup.ResNet',
            depth=50,
            in_channels=1,
            base_channels=4,
            stem_channels=4,
            norm_cfg=dict(type='BN'),
            **changes,
        )
    )


def reference_iternorm(x, steps=5, eps=1e-5):
    """Of the formula, on ``(C, samples)``, by plain autograd."""
    rows = x.transpose(0, 1).flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    size = len(rows)
    sigma = centred @ centred.T / rows.shape[1]
    sigma = sigma + eps * torch.eye(size, dtype=x.dtype)
    trace = sigma.trace()
    matrix = torch.eye(size, dtype=x.dtype)
    for _ in range(steps):
        matrix = 1.5 * matrix - 0.5 * (matrix @ matrix @ matrix @ sigma / trace)
    matrix = matrix / trace.sqrt()
    y = (matrix @ centred).view(x.shape[1], x.shape[0], *x.shape[2:])
    return y.transpose(0, 1), matrix


def test_iternorm_equals_the_formula():
    norm = IterNorm(6).double()
    x = (0.01 * maps(channels=6, dtype=torch.float64)).requires_grad_()
    expected, matrix = reference_iternorm(x)
    y = norm(x)
    close(y, expected)
    (found,) = torch.autograd.grad(loss_of(y), x)
    (wanted,) = torch.autograd.grad(loss_of(expected), x)
    close(found, wanted)
    close(norm.running_wm[0], 0.9 * torch.eye(6).double() + 0.1 * matrix)
    close(norm.running_mean[0, :, 0], 0.1 * x.mean((0, 2, 3)).detach())
    rows = norm.eval()(x) - norm.bias
    expected = torch.einsum(
        'ij,njhw->nihw', norm.running_wm[0], x - norm.running_mean[0, :, 0, None, None]
    )
    close(rows, expected)


def test_legacy_sits_in_the_last_bottleneck():
    backbone = resnet50()
    head = ReleaseDecorrelation(128)
    head.attach(backbone)
    assert isinstance(backbone.layer4[2].bn3, IterNorm)
    shapes = {
        name.removeprefix('layer4.2.bn3.'): tuple(value.shape)
        for name, value in backbone.state_dict().items()
        if name.startswith('layer4.2.bn3')
    }
    assert shapes == dict(
        weight=(1, 128, 1, 1),
        bias=(1, 128, 1, 1),
        running_mean=(1, 128, 1),
        running_wm=(1, 128, 128),
    )
    assert not head.state_dict()
    x = maps()
    assert head(x) is x
    with head.detached(backbone):  # takes the weights of an ordinary one
        source = resnet50()
        report = load_pretrained_backbone(backbone, source.state_dict())
        assert report.complete
    assert isinstance(backbone.layer4[2].bn3, IterNorm)
    close(backbone.layer4[2].conv3.weight, source.layer4[2].conv3.weight)


@pytest.mark.parametrize('depth, channels', [(18, 32), (50, 32)])
def test_legacy_needs_its_bottleneck(depth, channels):
    backbone = (
        resnet50()
        if depth == 50
        else MODELS.build(
            dict(
                type='mmselfsup.ResNet',
                depth=18,
                in_channels=1,
                base_channels=4,
                stem_channels=4,
            )
        )
    )
    with pytest.raises(ValueError, match='bn3 of the last bottleneck'):
        ReleaseDecorrelation(channels).attach(backbone)
