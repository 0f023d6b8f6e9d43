from types import SimpleNamespace

import pytest
import torch
from mmpretrain.structures import DataSample

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import local_info_nce
from medssl_mm.models.losses import LocalInfoNCELoss
from medssl_mm.models.necks import LocalRegions


def regions(seed):
    torch.manual_seed(seed)
    return LocalRegions(torch.randn(3, 5, 8), torch.rand(3, 5) > 0.2)


@pytest.mark.parametrize('negatives', ['image', 'batch'])
def test_uses_its_settings_and_both_masks(negatives):
    query, key = regions(0), regions(1)
    logs = LocalInfoNCELoss(0.7, negatives)(query, key, None)
    torch.testing.assert_close(
        logs.pop('loss'),
        local_info_nce(
            query.features, key.features, 0.7, query.valid & key.valid, negatives
        ),
    )
    assert set(logs) == {'chance_level', 'top1', 'valid_share'}


def test_other_images_of_the_patient_are_no_negatives():
    """As if the third image alone were beside the first, and both beside it."""
    query, key = regions(0), regions(1)
    names = ['one', 'one', 'two']
    samples = [DataSample(metainfo=dict(patient_id=name)) for name in names]
    context = SimpleNamespace(data_samples=samples)
    loss = LocalInfoNCELoss(0.7, 'batch', mask_same_patient=True)
    found = loss(query, key, context)['loss']
    valid = query.valid & key.valid
    total, count = 0, 0
    for image, name in enumerate(names):
        others = [i for i, n in enumerate(names) if n != name or i == image]
        a, b = (
            torch.nn.functional.normalize(v.features[others].flatten(0, 1), dim=1)
            for v in (query, key)
        )
        logits = (a @ b.T / 0.7).masked_fill(~valid[others].flatten(), -torch.inf)
        terms = logits.logsumexp(1) - (a * b).sum(1) / 0.7
        rows = terms.reshape(len(others), -1)[others.index(image)][valid[image]]
        total, count = total + rows.sum(), count + len(rows)
    torch.testing.assert_close(found, total / count)
    assert found < LocalInfoNCELoss(0.7, 'batch')(query, key, context)['loss']
    with pytest.raises(UserError, match='1 of 3 have no patient_id'):
        samples[1] = DataSample()
        loss(query, key, context)
