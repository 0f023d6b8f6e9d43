import torch

from medssl_mm.registry import MODELS


def test_predictor_of_the_host_learns_to_predict():
    """As the loss of mmselfsup's head: to the minimum, without the target."""
    torch.manual_seed(0)
    layer = dict(in_channels=4, hid_channels=8, out_channels=4)
    head = MODELS.build(
        dict(
            type='mmselfsup.LatentPredictHead',
            loss=dict(type='medssl_mm.LatentPredictionLoss'),
            predictor=dict(type='mmselfsup.MoCoV2Neck', with_avg_pool=False, **layer),
        )
    )
    embedding, target = torch.randn(6, 4), torch.randn(6, 4, requires_grad=True)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(300):
        loss = head(embedding, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert -1 - 1e-6 <= loss < -0.95  # to float32's rounding
    assert target.grad is None
