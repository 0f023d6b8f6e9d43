import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from medssl_mm.models.decode_heads import LinearHead


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def test_is_normalisation_and_one_matrix():
    torch.manual_seed(0)
    head = LinearHead(in_channels=6, num_classes=3)
    nn.init.normal_(head.conv_seg.weight)
    features = 100 * torch.randn(2, 6, 5, 4) + 30
    found = head([torch.zeros(1), features])
    mean = features.mean((0, 2, 3), keepdim=True)
    std = features.var((0, 2, 3), unbiased=False, keepdim=True).add(1e-5).sqrt()
    expected = torch.einsum(
        'kc,nchw->nkhw', head.conv_seg.weight[..., 0, 0], (features - mean) / std
    ) + head.conv_seg.bias.view(-1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_scale_of_the_features_does_not_matter():
    head = LinearHead(in_channels=4, num_classes=2)
    features = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(
        head([features]), head([1000 * features + 5]), rtol=1e-3, atol=1e-4
    )


def test_several_stages_at_the_resolution_of_the_first():
    head = LinearHead(in_channels=[4, 8], num_classes=3, in_index=[1, 2])
    stages = [
        torch.randn(1, 2, 16, 16),
        torch.randn(1, 4, 8, 8),
        torch.randn(1, 8, 4, 4),
    ]
    assert head(stages).shape == (1, 3, 8, 8)
    assert head.conv_seg.in_channels == 12


def test_loss_has_both_terms_and_its_gradient_stays_in_the_head():
    head = LinearHead(
        in_channels=4,
        num_classes=3,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True),
            dict(type='medssl_mm.SoftDiceLoss'),
        ],
    )
    features = torch.randn(2, 4, 4, 4)
    labels = torch.randint(0, 3, (2, 16, 16))
    losses = head.loss([features], samples(labels), None)
    assert {'loss_ce', 'loss_dice'} < set(losses)
    (losses['loss_ce'] + losses['loss_dice']).backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


def test_learns_a_small_organ():
    """24 of 8192 pixels, found with Dice + cross-entropy."""
    torch.manual_seed(0)
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, 20:32, 10:11] = 1
    features = torch.randn(2, 8, 64, 64)
    features[:, 0] += 4.0 * labels
    head = LinearHead(
        in_channels=8,
        num_classes=2,
        loss_decode=[
            dict(type='CrossEntropyLoss'),
            dict(type='medssl_mm.SoftDiceLoss'),
        ],
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    for _ in range(150):
        losses = head.loss([features], samples(labels), None)
        optimizer.zero_grad()
        (losses['loss_ce'] + losses['loss_dice']).backward()
        optimizer.step()
    found = head.eval()([features]).argmax(1)
    both = ((found == 1) & (labels == 1)).sum()
    dice = 2 * both / ((found == 1).sum() + (labels == 1).sum())
    assert dice > 0.7


def test_wrong_stages_are_named():
    with pytest.raises(ValueError, match='two lists of one length'):
        LinearHead(in_channels=[4, 8], num_classes=2, in_index=3)
    with pytest.raises(ValueError, match='two lists of one length'):
        LinearHead(in_channels=[4, 8], num_classes=2, in_index=[1])
