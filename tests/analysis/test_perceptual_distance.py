import numpy as np
import pytest
import torch
from torch import nn

from medssl_mm.analysis import perceptual_distance
from medssl_mm.analysis.perceptual_distance import (
    Distance,
    encoder_distances,
    load_lpips,
    lpips_distances,
    weight_files,
)
from medssl_mm.errors import InstallError, UserError
from tests.analysis.plain import Plain, pictures


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Folder of torchvision's weights, empty, and no network."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    return tmp_path


def write_squeeze(path, seed=0):
    """Random weights in the form of the published file."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    network = squeezenet1_1()
    torch.save(network.state_dict(), path)
    return network.features.eval()


def test_three_files_have_the_names_of_their_publisher(home):
    assert {net: path.name for net, (path, _) in weight_files().items()} == {
        'alex': 'alexnet-owt-7be5be79.pth',
        'vgg': 'vgg16-397923af.pth',
        'squeeze': 'squeezenet1_1-b8a52dc0.pth',
    }
    assert all(p.parent == home / 'checkpoints' for p, _ in weight_files().values())


def test_offline_says_which_files_are_needed_and_where(home):
    pytest.importorskip('torchmetrics')
    with pytest.raises(UserError) as caught:
        load_lpips('alex')
    text = str(caught.value)
    for name in ('alexnet-owt-7be5be79', 'vgg16-397923af', 'squeezenet1_1-b8a52dc0'):
        assert text.count(f'{home}/checkpoints/{name}.pth') == 1
    assert 'no route to host' in text
    # What is here need not be got.
    write_squeeze(weight_files()['squeeze'][0])
    with pytest.raises(UserError) as caught:
        load_lpips('vgg')
    assert 'squeezenet' not in str(caught.value)


def test_a_file_that_is_another_one_is_named(home):
    pytest.importorskip('torchmetrics')
    path = weight_files()['squeeze'][0]
    path.parent.mkdir()
    torch.save(dict(other=torch.zeros(1)), path)
    with pytest.raises(UserError, match=f'{path} is not the file from'):
        load_lpips('squeeze')


def test_lpips_equals_a_slow_loop_on_a_random_backbone(home):
    pytest.importorskip('torchmetrics')
    backbone = write_squeeze(weight_files()['squeeze'][0])
    net = load_lpips('squeeze')
    pairs = list(zip(pictures(3, 64), pictures(3, 64, seed=1)))
    found = lpips_distances(net, pairs, batch_size=2)
    shift, scale = (
        torch.tensor(v)[:, None, None]
        for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
    )
    ends = (1, 4, 7, 9, 10, 11, 12)
    for value, pair in zip(found, pairs):
        maps = []
        for picture in pair:
            x = torch.tensor(picture).permute(2, 0, 1) / 255 * 2 - 1
            x, own = ((x - shift) / scale)[None], []
            for number, part in enumerate(backbone):
                x = part(x)
                if number in ends:
                    own.append(x[0].detach().double().numpy())
            maps.append(own)
        total = 0.0
        for layer, (a, b) in enumerate(zip(*maps)):
            weights = (
                getattr(net, f'lin{layer}').model[-1].weight.flatten().double().numpy()
            )
            assert (weights >= 0).all()
            for y in range(a.shape[1]):
                for x in range(a.shape[2]):
                    u, v = a[:, y, x], b[:, y, x]
                    u = u / np.sqrt((u**2).sum() + 1e-8)
                    v = v / np.sqrt((v**2).sum() + 1e-8)
                    total += (weights * (u - v) ** 2).sum() / a[0].size
        assert value == pytest.approx(total, rel=1e-4)


def test_lpips_takes_grey_pictures_and_gives_0_for_the_same(home):
    pytest.importorskip('torchmetrics')
    write_squeeze(weight_files()['squeeze'][0])
    net = load_lpips('squeeze')
    grey = pictures(2, 64, channels=1)
    colour = [np.repeat(one, 3, axis=2) for one in grey]
    np.testing.assert_allclose(lpips_distances(net, [(g, g) for g in grey]), 0)
    np.testing.assert_allclose(
        lpips_distances(net, [tuple(grey)]), lpips_distances(net, [tuple(colour)])
    )


def test_without_torchmetrics_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(
        perceptual_distance.importlib.util, 'find_spec', lambda name: None
    )
    with pytest.raises(InstallError, match=r'medssl_mm\[perceptual\]'):
        load_lpips('alex')


def test_distance_in_an_encoder_normalises_as_it_wants():
    class Centred(Plain):
        def normalise(self, pixels):
            return (pixels - 0.5) / 0.25

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3)).eval()

    def maps(images):
        first = encoder[:2](images)
        return [first, encoder[2](first)]

    pairs = list(zip(pictures(3), pictures(3, seed=1)))
    found = encoder_distances(encoder, maps, Centred(), pairs, batch_size=2)
    one, other = (
        maps((torch.tensor(np.stack(side)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        for side in zip(*pairs)
    )
    expected = 0
    for a, b in zip(one, other):
        a, b = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-9) for x in (a, b))
        expected = expected + (a - b).square().sum(1).flatten(1).mean(1)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4)
    encoder.train()
    with pytest.raises(ValueError, match='training mode'):
        encoder_distances(encoder, maps, Centred(), pairs)


def test_spread_and_interval_are_over_pairs():
    values = np.array([0.2, 0.4, 0.9])
    one = Distance('a', 'alex', values)
    assert one.spread == pytest.approx(np.std(values, ddof=1))
    assert one.mean.estimate == pytest.approx(0.5)
    assert one.mean.high - 0.5 == pytest.approx(1.96 * one.spread / 3**0.5)
    alone = Distance('a', 'alex', values[:1])
    assert np.isnan(alone.spread) and np.isnan(alone.mean.low)
