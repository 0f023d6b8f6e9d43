"""Tools that look into encoders, from pictures to files, on a small encoder."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medssl_mm.analysis.deep_image_prior import FeatureInversion
from medssl_mm.analysis.perceptual_distance import weight_files
from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.encoders import load_encoder
from medssl_mm.functional.perceptual import feature_distance
from medssl_mm.store import open_store
from medssl_mm.store.image_writer import ImageStoreWriter
from tests.analysis.plain import pictures

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTION = """encoder = dict(
    title='Small',
    backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=8),
    embedding_length=64,
    preprocessing=dict(size=32),
)
"""


@pytest.fixture
def setting(tmp_path):
    """Pictures of two classes, both eyes of a person, and a described encoder."""
    (tmp_path / 'small.py').write_text(DESCRIPTION)
    network = load_encoder(f'random:{tmp_path / "small.py"}', seed=3).backbone
    torch.save(network.state_dict(), tmp_path / 'small.pth')
    for number, picture in enumerate(pictures(16, 32)):
        name = f'{"ill" if number % 4 < 2 else "well"}/{number // 2}_'
        name += ('left', 'right')[number % 2]
        path = tmp_path / f'eyes/{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path


EYES = ('eyes', '--patient-pattern', r'(\d+)_(left|right)')
ENCODERS = ('--encoders', 'small=small.py:small.pth', 'chance=random:small.py')


def read(folder, name):
    return json.loads((folder / name).read_text())


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_invariances(call, setting, capsys):
    arguments = ['invariances', *EYES, *ENCODERS, '--count', '4', '--out', 'found']
    chosen = ['--transforms', 'h_flip', 'rotation', '--steps', '4', '--pairs']
    assert call(*arguments, *chosen, 'left', 'right') == 0
    out = setting / 'found'
    assert files(out) == [
        'invariances.csv',
        'invariances.json',
        'invariances.md',
        'invariances.png',
        'invariances_copies.png',
        'invariances_curves.png',
        'invariances_measures.csv',
    ]
    content = read(out, 'invariances.json')
    assert content['mode'] == 'strict' and content['pairs'] == 8
    results = {(r['encoder'], r['transform']): r for r in content['results']}
    assert len(results) == 6
    assert results['small', 'rotation']['parameters'] == [90, 180, 270]
    assert results['small', 'rotation']['cosine']['count'] == 4
    assert results['small', 'pairs']['cosine']['count'] == 8
    assert 0 <= content['shrinkage']['small'] <= 1
    assert 'Whitened cosine (strict)' in capsys.readouterr().out
    # Refused while the result is there; nothing is computed twice.
    assert call(*arguments, *chosen) == 2
    assert 'add --overwrite' in capsys.readouterr().err
    times = {p: p.stat().st_mtime_ns for p in (out / 'parts').iterdir()}
    more = ['--transforms', 'h_flip', 'invert', '--steps', '4', '--overwrite']
    assert call(*arguments, *more) == 0
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert len(list((out / 'parts').iterdir())) == len(times) + 2
    again = {
        (r['encoder'], r['transform']): r
        for r in read(out, 'invariances.json')['results']
    }
    key = 'small', 'h_flip'
    assert again[key] == results[key]


def test_invariances_of_compat_hold_the_unchanged_copy(call, setting):
    arguments = ['invariances', *EYES, *ENCODERS[:2], '--count', '3']
    arguments += ['--transforms', 'h_flip', '--mode']
    for mode in ('strict', 'compat'):
        assert call(*arguments, mode, '--out', mode) == 0
    found = read(setting / 'compat', 'invariances.json')
    assert found['mode'] == 'compat'
    assert found['results'][0]['cosine_by_parameter'][0] == pytest.approx(1)
    assert len(found['results'][0]['cosine_by_parameter']) == 2


@pytest.fixture
def grades(setting):
    """Both eyes of twelve persons; of four of them the grades differ."""
    writer = ImageStoreWriter.create(
        setting / 'data/diabetic-retinopathy',
        'diabetic-retinopathy',
        'single-label',
        IMAGE_SETS['diabetic-retinopathy'].classes,
        3,
        (40, 32),
    )
    for number, picture in enumerate(pictures(24, 40)):
        person, side = divmod(number, 2)
        writer.add_case(
            f'{person}_{("left", "right")[side]}',
            picture[:, :32],
            (person + (side and person < 4)) % 5,
            patient_id=str(person),
            source_file=f'{number}.png',
            source_stat=[(f'{number}.png', 1, 2)],
        )
    writer.finish()
    return setting


def test_pairs_of_compat(call, grades, capsys):
    """Eyes of one grade, brought to 224 px at once: features by hand."""
    command = ['invariances', 'data/diabetic-retinopathy', *ENCODERS[:2], '--pairs']
    for mode in ('strict', 'compat'):
        assert call(*command, '--mode', mode, '--out', mode) == 0
    assert read(grades / 'strict', 'invariances.json')['pairs'] == 12
    content = read(grades / 'compat', 'invariances.json')
    assert content['mode'] == 'compat' and content['pairs'] == 100  # drawn, of 8
    store = open_store('data/diabetic-retinopathy', 'classification')
    encoder = load_encoder('small.py:small.pth')
    step = encoder.preprocessing.model_copy(
        update=dict(size=224, resize_to=None, interpolation='bicubic')
    )
    one = {
        person: encoder(step(store.read(store.index_of(f'{person}_left')))[None])[0]
        for person in range(12)
    }
    parts = [np.load(path) for path in (grades / 'compat/parts').iterdir()]
    lefts, rights = (part['features'] for part in parts)
    drawn = set()
    for row in [*lefts, *rights]:
        near = [p for p, own in one.items() if np.allclose(own, row, atol=1e-4)]
        drawn.update(near)
    assert drawn == set(range(4, 12))
    # Of the config only two classes come, of files none.
    command[1] = 'diabetic-retinopathy'
    assert call(*command, '--mode', 'compat', '--out', 'x') == 2
    message = capsys.readouterr().err
    assert 'the classes are not referable, referable' in message
    assert 'folder of the image set (data/diabetic-retinopathy)' in message


@pytest.mark.parametrize('tool', ['invariances', 'neighbours', 'saliency'])
def test_compat_takes_the_network_of_the_study(call, setting, capsys, tool):
    if tool == 'saliency':
        pytest.importorskip('captum')
    pytest.importorskip('timm')
    more = dict(
        invariances=['--transforms', 'h_flip', '--count', '2'],
        neighbours=['--neighbours', '1'],
        saliency=['--count', '1', '--window', '100', '--stride', '100'],
    )
    command = [tool, *EYES, '--encoders', 'l=random:efficientnet-lite0', *more[tool]]
    for mode, name in (('strict', ''), ('compat', '_torch-padding')):
        assert call(*command, '--mode', mode, '--out', mode) == 0
        content = read(setting / mode, f'{tool}.json')
        assert content['encoders'] == {'l': f'random:efficientnet-lite0{name}:0'}
        rule = 'l: efficientnet-lite0_torch-padding for efficientnet-lite0'
        assert (rule in (setting / mode / f'{tool}.md').read_text()) == bool(name)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--transforms', 'rotate'], 'did you mean rotation?'),
        (['--transforms', 'translation', '--steps', '5'], '4, 9, 16'),
        (['--pairs', 'left'], 'two expressions or none'),
        (['--pairs'], 'such as --pairs left right'),
        (['--pairs', '(', 'right'], 'no regular expression'),
        (['--pairs', 'left', 'middle'], '0 of 8 patients have two such images'),
        (['--count', '1'], '--count must be 2 or more'),
    ],
)
def test_invariances_refuse(call, setting, capsys, arguments, message):
    command = ['invariances', *EYES, *ENCODERS[:2], '--out', 'x', *arguments]
    assert call(*command) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'encoder, message',
    [
        ('a=small.pth', 'NAME=ENCODER:PATH'),
        ('random', 'NAME=random:ENCODER'),
        ('nowhere', "no encoder is called 'nowhere'"),
        ('a=small.py:absent.pth', 'absent.pth'),
    ],
)
def test_encoders_that_cannot_be_are_refused(call, setting, capsys, encoder, message):
    command = ['neighbours', *EYES, '--encoders', encoder, '--out', 'x']
    assert call(*command) == 2
    assert message in capsys.readouterr().err


def test_colours_for_an_encoder_of_grey_pictures(call, setting, capsys):
    grey = (setting / 'small.py').read_text().replace('size=32', 'size=32, channels=1')
    grey = grey.replace('depth=18', 'depth=18, in_channels=1')
    grey = grey.replace('channels=1)', 'channels=1, mean=[0.5], std=[0.2])')
    (setting / 'grey.py').write_text(grey)
    command = ['--encoders', 'grey=random:grey.py', '--out', 'x']
    for tool in ('neighbours', 'saliency', 'invariances', 'deep_image_prior'):
        assert call(tool, *EYES, *command) == 2, tool
        message = capsys.readouterr().err
        assert 'takes grey pictures' in message
        assert '_left: ' in message or '_right: ' in message


def test_every_tool_tells_once_what_is_enlarged(call, setting, capsys):
    pytest.importorskip('captum')
    larger = (setting / 'small.py').read_text().replace('size=32', 'size=40')
    (setting / 'larger.py').write_text(larger)
    encoders = ['--encoders', 'one=random:larger.py', 'two=random:larger.py:1']
    note = 'larger asks for 40 px and sees pictures of 32 px enlarged'
    for tool, *options in (
        ('neighbours', '--neighbours', '3'),
        ('saliency', '--stride', '10', '--count', '1'),
        ('invariances', '--transforms', 'h_flip', '--count', '4'),
        ('deep_image_prior', '--iterations', '1', '--count', '1'),
    ):
        assert call(tool, *EYES, *encoders, *options, '--out', tool) == 0, tool
        assert capsys.readouterr().out.replace('\n', ' ').count(note) == 1, tool
        [result] = (setting / tool).glob('*.json')
        assert read(setting / tool, result.name)['notes'].count(note) == 1, tool


def test_neighbours(call, setting, capsys):
    command = ['neighbours', *EYES, *ENCODERS, '--neighbours', '3', '--out', 'found']
    assert call(*command) == 0
    out = setting / 'found'
    assert files(out) == [
        'neighbours.csv',
        'neighbours.json',
        'neighbours.md',
        'neighbours_chance.png',
        'neighbours_small.png',
    ]
    content = read(out, 'neighbours.json')
    first = content['shown'][0]
    person = first['query'].split('/')[1].split('_')[0]
    assert len(first['neighbours']) == 3
    assert all(f'/{person}_' not in name for name in first['neighbours'])
    kind = first['query'].split('/')[0]
    assert first['right'] == [n.startswith(kind) for n in first['neighbours']]
    assert content['results'][0]['queries'] == 16
    # 6 others of the own class, 8 of the other one.
    assert content['results'][0]['chance'] == pytest.approx(6 / 14)
    assert call('neighbours', 'eyes/ill', *ENCODERS, '--out', 'x') == 2
    assert 'has no classes' in capsys.readouterr().err


def test_saliency(call, setting, capsys):
    pytest.importorskip('captum')
    command = ['saliency', *EYES, *ENCODERS, '--count', '2', '--stride', '6']
    assert call(*command, '--out', 'found') == 0
    out = setting / 'found'
    assert files(out) == [
        'saliency.csv',
        'saliency.json',
        'saliency.md',
        'saliency.png',
        'saliency_measures.csv',
    ]
    content = read(out, 'saliency.json')
    assert {r['image_id'].split('/')[0] for r in content['results']} == {'ill', 'well'}
    own = [r['attentive_diffusion'] for r in content['results'][:2]]
    assert content['means']['small']['mean'] == pytest.approx(np.mean(own))
    # Of 242 pixels the inner 224; a stride of 1 would take 54,289 images.
    some = ['--mode', 'compat', '--window', '80', '--stride', '80', '--count', '1']
    assert call(*command, *some, '--out', 'compat') == 0
    assert read(setting / 'compat', 'saliency.json')['mode'] == 'compat'
    [part, _] = (setting / 'compat/parts').iterdir()
    assert np.load(part)['values'].shape == (242, 242)
    assert call(*command, '--stride', '11', '--out', 'x') == 2
    assert 'choose a stride from 1' in capsys.readouterr().err


@pytest.fixture
def inverted(call, setting):
    """Function that inverts some pictures; returns exit code and folder."""

    def run(out, *more):
        command = ['deep_image_prior', *EYES, *ENCODERS[:2], '--images', '0_left']
        command += ['4_right', '--iterations', '4', '--preview-every', '2']
        return call(*command, '--out', out, *more), setting / out

    return run


def test_deep_image_prior_goes_on_bit_by_bit(inverted, monkeypatch, capsys):
    code, whole = inverted('whole')
    assert code == 0
    assert files(whole) == [
        'deep_image_prior.json',
        'deep_image_prior.png',
        'deep_image_prior_losses.png',
    ]
    assert files(whole / 'small') == [
        'ill_0_left.png',
        'ill_0_left_original.png',
        'ill_4_right.png',
        'ill_4_right_original.png',
        'previews.png',
    ]
    content = read(whole, 'deep_image_prior.json')
    losses = np.array(content['losses']['small'])
    assert losses.shape == (4, 2) and content['pairs'][0]['error'] == losses[-1, 0]
    step, calls = FeatureInversion.step, []

    def interrupted(self):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return step(self)

    monkeypatch.setattr(FeatureInversion, 'step', interrupted)
    assert inverted('part')[0] == 130
    monkeypatch.setattr(FeatureInversion, 'step', step)
    capsys.readouterr()
    assert inverted('part')[0] == 2
    assert 'add --resume to go on' in capsys.readouterr().err
    code, part = inverted('part', '--resume')
    assert code == 0
    assert not list((part / 'states').iterdir())
    assert read(part, 'deep_image_prior.json')['losses'] == content['losses']
    for path in (whole / 'small').glob('*[0-9t].png'):
        assert path.read_bytes() == (part / 'small' / path.name).read_bytes()


def test_compat_makes_one_iteration_more(inverted):
    code, folder = inverted('compat', '--mode', 'compat')
    assert code == 0
    content = read(folder, 'deep_image_prior.json')
    assert content['mode'] == 'compat' and len(content['losses']['small']) == 5


def test_map_of_a_densenet_is_normalised_in_strict_alone(tmp_path):
    path = tmp_path / 'dense.py'
    path.write_text(
        "encoder = dict(title='Dense', backbone=dict(type='mmpretrain.DenseNet', "
        'arch=dict(growth_rate=4, depths=[2, 2], init_channels=8)), '
        'embedding_length=16, preprocessing=dict(size=32))'
    )
    encoder = load_encoder(f'random:{path}')
    tool = runpy.run_path(str(ROOT / 'tools/analysis/deep_image_prior.py'))
    images = torch.rand(2, 3, 32, 32)
    strict, compat = (
        tool['target_maps'](encoder, mode)(images) for mode in ('strict', 'compat')
    )
    assert strict.shape == compat.shape and not torch.equal(strict, compat)
    torch.testing.assert_close(encoder.backbone.transitions[-1](compat), strict)
    assert (strict >= 0).all()


def test_perceptual_distance_in_an_encoder(call, inverted, setting, capsys):
    assert inverted('made')[0] == 0
    command = ['perceptual_distance', 'made', '--nets', 'none']
    command += ['--measures', 'measure=small.py:small.pth']
    assert call(*command, '--out', 'found') == 0
    assert 'only 2 pictures' in capsys.readouterr().out
    out = setting / 'found'
    assert files(out) == [
        'perceptual_distance.csv',
        'perceptual_distance.json',
        'perceptual_distance.md',
        'perceptual_distance.png',
        'perceptual_distance_measures.csv',
        'perceptual_distance_pairs.png',
    ]
    [result] = read(out, 'perceptual_distance.json')['results']
    encoder = load_encoder('small.py:small.pth')
    numbers = range(1, 5)
    for value, stem in zip(result['values'], ('ill_0_left', 'ill_4_right')):
        one, other = (
            encoder.preprocessing(np.array(Image.open(f'made/small/{stem}{end}.png')))
            for end in ('_original', '')
        )
        maps = [
            list(encoder.places.maps(picture[None], numbers).values())
            for picture in (one, other)
        ]
        assert value == pytest.approx(float(feature_distance(*maps)), rel=1e-4)
    # No table of both modes.
    assert inverted('other', '--mode', 'compat')[0] == 0
    assert call(command[0], 'other', *command[1:], '--out', 'x') == 2
    assert 'no table mixes them' in capsys.readouterr().err


def test_a_random_measure_has_statistics_of_the_originals(call, inverted, setting):
    """As random encoders have everywhere; each original counts once."""
    assert inverted('made')[0] == 0
    command = ['perceptual_distance', 'made', 'made', '--nets', 'none']
    command += ['--measures', 'chance=random:small.py', '--out', 'found']
    assert call(*command) == 0
    [result] = read(setting / 'found', 'perceptual_distance.json')['results']
    encoder = load_encoder('random:small.py')
    one, other = (
        torch.stack(
            [
                encoder.preprocessing(
                    np.array(Image.open(f'made/small/{name}{end}.png'))
                )
                for name in ('ill_0_left', 'ill_4_right')
            ]
        )
        for end in ('_original', '')
    )
    norms = [p for p in encoder.modules() if isinstance(p, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        encoder.train()(one)
        encoder.eval()
        maps = [
            list(encoder.places.maps(images, range(1, 5)).values())
            for images in (one, other)
        ]
        expected = feature_distance(*maps).numpy()
    np.testing.assert_allclose(result['values'], np.tile(expected, 2), rtol=1e-3)


def test_lpips_offline_names_its_files(call, setting, monkeypatch, capsys):
    pytest.importorskip('torchmetrics')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(setting / 'hub'))

    def refuse(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    pair = 'eyes/ill/0_left.png=eyes/ill/0_right.png'
    assert call('perceptual_distance', '--pairs', pair, '--out', 'x') == 2
    text = capsys.readouterr().err
    assert all(str(path) in text for path, _ in weight_files().values())
    assert '--nets none' in text


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'nothing to measure'),
        (['nowhere'], 'deep_image_prior.json does not exist'),
        (['--pairs', 'a.png'], 'ORIGINAL=OTHER'),
        (['--pairs', 'eyes/ill/0_left.png=absent.png'], 'absent.png does not exist'),
        (['--nets', 'none'], 'needs --measures'),
    ],
)
def test_perceptual_distance_refuses(call, setting, capsys, arguments, message):
    assert call('perceptual_distance', *arguments, '--out', 'x') == 2
    assert message in capsys.readouterr().err
