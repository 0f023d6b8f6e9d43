import pytest

from medssl_mm.backbones import choose_encoder, target_prefix
from medssl_mm.errors import UserError

BYOL = ['backbone.conv1.weight', 'target_net.module.0.conv1.weight']
MOCO = ['backbone.conv1.weight', 'encoder_k.module.0.conv1.weight', 'queue']
PLAIN = ['backbone.conv1.weight', 'neck.fc0.weight']


@pytest.mark.parametrize(
    'names, prefix, chosen',
    [
        (BYOL, 'target_net.module.0.', 'target'),
        (MOCO, 'encoder_k.module.0.', 'online'),
        (
            ['module.encoder_q.conv1', 'module.encoder_k.conv1'],
            'module.encoder_k.',
            'online',
        ),
        (PLAIN, '', 'online'),
    ],
)
def test_without_a_wish(names, prefix, chosen):
    assert target_prefix(names) == prefix
    assert choose_encoder(names, None, 'FILE') == chosen
    assert choose_encoder(names, 'online', 'FILE') == 'online'
    if prefix:
        assert choose_encoder(names, 'target', 'FILE') == 'target'


def test_wrong_wishes():
    with pytest.raises(UserError, match='FILE holds no target encoder .*target_net'):
        choose_encoder(PLAIN, 'target', 'FILE')
    with pytest.raises(UserError, match='"online" or "target", got \'slow\''):
        choose_encoder(BYOL, 'slow', 'FILE')
