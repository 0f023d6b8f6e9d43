"""probe.py and cka.py, from a config and checkpoints to files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl_mm.checkpoint_features import EncoderFeatures, ImageSubsets, Weights
from medssl_mm.functional.cka import linear_cka, rbf_cka
from tests.analysis import toy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setting(tmp_path):
    """Images, a config and two checkpoints in the folder of the test."""
    toy.write_images(tmp_path / 'images')
    toy.write_config(tmp_path / 'toy.py', tmp_path / 'images')
    for seed, name in enumerate(('before', 'after')):
        toy.write_checkpoint(tmp_path / f'{name}.pth', seed)
    return tmp_path


def features(folder, name, subset='test', kind='stages'):
    """Read what the tool has cached."""
    from mmengine.config import Config

    images = ImageSubsets(Config.fromfile(folder / 'toy.py'))
    source = EncoderFeatures(images, 'work_dirs/features')
    found = source.features(Weights(name, folder / f'{name}.pth'), subset, kind)
    return {
        place: torch.from_numpy(np.array(found.read(place))) for place in found.places
    }


@pytest.mark.slow
def test_probe_and_its_second_run(call, setting, capsys):
    arguments = [
        'probe',
        'toy.py',
        '--checkpoints',
        'moco=before.pth',
        'random',
        'random:1',
        '--fractions',
        '0.5',
        '1',
        '--fraction-seeds',
        '0',
        '2',
        '--strengths',
        '0.1',
        '1',
        '--bootstrap',
        '50',
        '--baseline',
        'random',
    ]
    assert call(*arguments, '--stem') == 0
    out = capsys.readouterr().out
    assert '100 % of the labels: left out rare (0 of 24 test images)' in out
    assert 'means are over the other 2 of 3 classes' in ' '.join(out.split())
    folder = setting / 'work_dirs/toy/probe'
    assert sorted(path.name for path in folder.iterdir()) == [
        'probe.csv',
        'probe.json',
        'probe.md',
        'probe.png',
    ]
    first = json.loads((folder / 'probe.json').read_text())
    assert first['checkpoints'] == {
        'moco': ['before.pth'],
        'random': ['random:0'],
        'random:1': ['random:1'],
    }
    assert {m['checkpoint'] for m in first['means'] if 'auroc_difference' in m} == {
        'moco',
        'random:1',
    }
    assert first['split_hash'] == 'ab' and first['task'] == 'multi-label'
    assert first['images'] == toy.SIZES
    assert first['patients'] == dict(train=20, val=8, test=12)
    assert {
        (
            p['checkpoint'],
            p['place'],
            p['fraction'],
            p['fraction_seed'],
            p['train_images'],
        )
        for p in first['probes']
    } == {
        (name, place, *draw)
        for name in first['checkpoints']
        for place in ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
        for draw in ((0.5, 0, 20), (0.5, 2, 20), (1.0, None, 40))
    }
    # Brightness is easy to see, whatever the weights.
    assert all(
        p['per_class']['bright']['value'] > 0.6
        for p in first['probes']
        if p['place'] == 'stem'
    )

    toy.delete_images(setting / 'images')
    assert call(*arguments, '--stem') == 2
    assert 'probe.json exists; choose another --out' in (capsys.readouterr().err)
    assert call(*arguments, '--stem', '--overwrite') == 0
    assert json.loads((folder / 'probe.json').read_text()) == first


@pytest.mark.slow
def test_train_on_one_set_and_test_on_another(call, tmp_path, capsys):
    """A bright square is 'Effusion' in one set, 'Pleural Effusion' in the other."""
    from medssl_mm.store.image_writer import ImageStoreWriter
    from medssl_mm.store.splits import Split, save_split

    for name, classes in (
        ('one', ('Hernia', 'Effusion')),
        ('other', ('Pleural Effusion', 'Fracture')),
    ):
        root = tmp_path / f'data/{name}'
        writer = ImageStoreWriter.create(
            root, name, 'multi-label', classes, 1, (32, 32)
        )
        column = [n for n, text in enumerate(classes) if 'Effusion' in text][0]
        for number in range(60):
            image = np.random.default_rng(number).integers(0, 60, (32, 32), np.uint8)
            label = [(number // 2) % 2, (number // 2) % 2]
            label[column] = number % 2
            image[8:24, 8:24] += np.uint8(150 * label[column])
            writer.add_case(f'i{number:02d}', image, label)
        ids = writer.finish().case_ids
        parts = dict(train=ids[:30], val=ids[30:40], test=ids[40:])
        save_split(root, Split('made', name, parts))
        images = dict(
            type='medssl_mm.ClassificationImages', data_root=str(root), split='made'
        )
        (tmp_path / f'{name}.py').write_text(f'images = {images!r}\n')
    arguments = ['probe', '--train-on', 'one.py', '--test-on', 'other.py']
    encoder = ['--checkpoints', 'r=random:resnet18', '--bootstrap', '20']
    assert call(*arguments, *encoder) == 0
    result = json.loads(Path('work_dirs/one-on-other/probe/probe.json').read_text())
    assert result['classes'] == ['Effusion'] and result['config'] == 'one-on-other'
    assert result['images'] == dict(train=30, val=10, test=20)
    assert all(p['auroc']['value'] > 0.95 for p in result['probes'])
    for wrong, message in (
        (arguments[:3], 'two image sets: --train-on A --test-on B'),
        ([*arguments, 'toy.py'], 'two image sets: --train-on A --test-on B'),
        (['probe', '--train-on', 'one.py', '--test-on', 'nih100'], 'mean nih1000'),
    ):
        assert call(*wrong, *encoder, '--overwrite') == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_probe_of_single_labels_by_several_jobs(call, setting, capsys):
    toy.write_config(setting / 'toy.py', setting / 'images', 'single')
    arguments = [
        'probe',
        'toy.py',
        '--checkpoints',
        'a=before.pth',
        '--bootstrap',
        '20',
        '--strengths',
        '0.1',
    ]
    assert call(*arguments, '--out', 'one') == 0
    assert 'macro F1' in capsys.readouterr().out
    assert call(*arguments, '--out', 'two', '--jobs', '2') == 0
    one, two = (
        json.loads((setting / name / 'probe.json').read_text())
        for name in ('one', 'two')
    )
    assert one == two
    assert one['task'] == 'single-label'
    assert [p['place'] for p in one['probes']] == [
        'stage1',
        'stage2',
        'stage3',
        'stage4',
    ]
    assert all(p['f1']['value'] > 0.4 for p in one['probes'])


def test_reuse_equals_the_functions(call, setting, capsys):
    assert (
        call(
            'cka',
            'toy.py',
            '--before',
            'moco=before.pth',
            '--after',
            'moco=after.pth',
            '--num-subsets',
            '3',
            '--subset-size',
            '20',
            '--unbiased',
            '--seed',
            '4',
        )
        == 0
    )
    assert '3 subsets' in capsys.readouterr().out
    folder = setting / 'work_dirs/toy/cka'
    assert sorted(path.name for path in folder.iterdir()) == ['reuse.json', 'reuse.png']
    content = json.loads((folder / 'reuse.json').read_text())
    assert content['methods'] == dict(
        moco=dict(before=['before.pth'], after=['after.pth'])
    )
    assert content['stride'] == 32
    trained = 'running statistics of the training'
    assert content['normalisation'] == dict(moco=dict(before=trained, after=trained))
    before, after = (features(setting, n) for n in ('before', 'after'))
    rng = np.random.default_rng(4)
    rows = [rng.choice(24, 20, replace=False) for _ in range(3)]
    assert [stage['place'] for stage in content['stages']] == [
        'stage1',
        'stage2',
        'stage3',
        'stage4',
    ]
    for stage in content['stages']:
        x, y = before[stage['place']], after[stage['place']]
        assert stage['values'] == pytest.approx(
            dict(
                linear=float(linear_cka(x, y)),
                rbf=float(rbf_cka(x, y)),
                linear_unbiased=float(linear_cka(x, y, True)),
                rbf_unbiased=float(rbf_cka(x, y, unbiased=True)),
            ),
            abs=1e-5,
        )
        assert stage['subsets']['rbf']['mean'] == pytest.approx(
            np.mean([float(rbf_cka(x[r], y[r])) for r in rows]), abs=1e-5
        )
        assert stage['bandwidth_ratios'] == [0.8, 0.8]


def test_same_checkpoint_before_and_after(call, setting, capsys):
    assert (
        call(
            'cka',
            'toy.py',
            '--before',
            'moco=before.pth',
            'mse=after.pth',
            '--after',
            'mse=after.pth',
            'moco=before.pth',
            '--absolute-bandwidth',
            '1e-4',
            '--out',
            'out',
        )
        == 0
    )
    out = capsys.readouterr().out
    assert '24 test images: no random subsets of 1000' in out
    assert 'absolute bandwidth 0.0001 is ' in out
    assert 'tends to 1 for any two networks: moco stage1' in ' '.join(out.split())
    content = json.loads((setting / 'out/reuse.json').read_text())
    assert content['bandwidth_unit'] == 'features'
    assert len(content['stages']) == 8
    for stage in content['stages']:
        assert stage['values'] == pytest.approx(dict(linear=1.0, rbf=1.0))
        assert stage['subsets'] == {}


def test_seeds_of_a_method(call, setting, capsys):
    """The second run of a name is another seed; order pairs them."""
    assert (
        call(
            'cka',
            'toy.py',
            '--before',
            'a=before.pth',
            'a=before.pth',
            '--after',
            'a=before.pth',
            'a=after.pth',
            '--num-subsets',
            '0',
        )
        == 0
    )
    out = capsys.readouterr().out
    assert 'SD over seeds' in out
    stages = json.loads((setting / 'work_dirs/toy/cka/reuse.json').read_text())[
        'stages'
    ]
    assert [(s['place'], s['number']) for s in stages[::4]] == [
        ('stage1', 0),
        ('stage1', 1),
    ]
    first, second = stages[0]['values']['rbf'], stages[4]['values']['rbf']
    assert first == pytest.approx(1) and second < 0.999
    shown = f'{(first + second) / 2:.3f} │ {(1 - second) / 2**0.5:.3f}'
    assert shown in ' '.join(out.split())
    assert (
        call(
            'probe',
            'toy.py',
            '--checkpoints',
            'a=before.pth',
            'a=after.pth',
            '--strengths',
            '1',
            '--bootstrap',
            '10',
        )
        == 0
    )
    assert ' fits ' in capsys.readouterr().out
    content = json.loads((setting / 'work_dirs/toy/probe/probe.json').read_text())
    assert content['checkpoints'] == {'a': ['before.pth', 'after.pth']}
    assert [p['number'] for p in content['probes']] == [0] * 4 + [1] * 4


def test_heat_map_of_all_blocks(call, setting):
    for kernel, function in (('linear', linear_cka), ('rbf', rbf_cka)):
        assert (
            call(
                'cka',
                'toy.py',
                '--layers',
                'a=before.pth',
                'b=after.pth',
                '--kernel',
                kernel,
                '--out',
                kernel,
                '--max-images',
                '12',
            )
            == 0
        )
        content = json.loads((setting / kernel / 'layers.json').read_text())
        rows = np.linspace(0, 23, 12).round().astype(int)
        first, second = (
            features(setting, n, kind='blocks') for n in ('before', 'after')
        )
        blocks = [f'stage{stage}.{block}' for stage in range(1, 5) for block in (0, 1)]
        assert content['layers'] == dict(a=blocks, b=blocks)
        np.testing.assert_allclose(
            content['matrix'],
            [
                [float(function(first[i][rows], second[j][rows])) for j in blocks]
                for i in blocks
            ],
            atol=1e-5,
        )
    assert (
        call(
            'cka',
            'toy.py',
            '--layers',
            'a=before.pth',
            'b=before.pth',
            '--unbiased',
            '--out',
            'own',
        )
        == 0
    )
    content = json.loads((setting / 'own/layers.json').read_text())
    assert content['estimate'] == 'linear_unbiased'
    np.testing.assert_allclose(np.diag(content['matrix']), 1, atol=1e-5)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['probe', 'toy.py', '--checkpoints', 'a=absent.pth'],
            'checkpoint absent.pth (a) does not exist',
        ),
        (
            ['probe', 'toy.py', '--checkpoints', 'random', '--fractions', '2'],
            '--fractions: 2 is out of range',
        ),
        (
            ['probe', 'toy.py', '--checkpoints', 'random', '--fraction-seeds', '1'],
            '--fraction-seeds draw --fractions',
        ),
        (
            ['probe', 'toy.py', '--checkpoints', 'random', '--baseline', 'moco'],
            '--baseline moco is not one of the checkpoints random',
        ),
        (
            ['probe', 'absent.py', '--checkpoints', 'random'],
            'config absent.py does not exist',
        ),
        (
            ['probe', 'toy.py', '--checkpoints', 'random', '--jobs', '0'],
            '--max-iter and --jobs must be positive',
        ),
        (
            ['probe', 'toy.py', '--checkpoints', 'deep=deep.pth'],
            'deep.pth does not fill the backbone',
        ),
        (
            [
                'probe',
                'toy.py',
                '--checkpoints',
                'random',
                '--cfg-options',
                'val_dataloader.dataset.labels=unknown',
            ],
            'the val subset has no labels (16 images)',
        ),
        (
            [
                'probe',
                'toy.py',
                '--checkpoints',
                'random',
                '--cfg-options',
                'val_dataloader.dataset.subset=test',
            ],
            'patient(s) are in the val and in the test subset',
        ),
        (['cka', 'toy.py'], 'nothing to compare'),
        (
            ['cka', 'toy.py', '--before', 'a=before.pth'],
            'must have the same names, each as often, got a and none',
        ),
        (
            ['cka', 'toy.py', '--before', 'a=before.pth', '--after', 'b=after.pth'],
            'each as often, got a and b',
        ),
        (
            [
                'cka',
                'toy.py',
                '--before',
                'a=before.pth',
                'a=after.pth',
                '--after',
                'a=after.pth',
            ],
            'each as often, got a, a and a',
        ),
        (
            ['cka', 'toy.py', '--layers', 'random', 'random:1', '--bandwidth', '-1'],
            '--bandwidth must be positive',
        ),
    ],
)
def test_bad_input(call, setting, capsys, arguments, message):
    toy.write_checkpoint(setting / 'deep.pth', depth=34)
    if 'deep=deep.pth' in arguments:
        arguments = [*arguments, '--cfg-options', 'model.backbone.depth=50']
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not (setting / 'work_dirs/toy').exists()


@pytest.mark.slow
def test_from_the_shell(setting):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools/analysis/probe.py'),
            'toy.py',
            '--checkpoints',
            'random',
            '--strengths',
            '1',
            '--bootstrap',
            '10',
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=setting,
    )
    assert done.returncode == 0, done.stderr
    assert 'written: work_dirs/toy/probe/probe.json' in done.stdout
    # Nothing of the libraries' chatter.
    assert 'INFO' not in done.stdout + done.stderr
    assert 'Warning' not in done.stderr


@pytest.mark.slow
def test_few_shot_and_its_second_run(call, setting, capsys):
    toy.write_config(setting / 'toy.py', setting / 'images', labels='single')
    arguments = [
        'few_shot',
        'toy.py',
        '--checkpoints',
        'moco=before.pth',
        'moco=after.pth',
        'random',
        '--baseline',
        'random',
        '--shots',
        '1',
        '4',
        '--queries',
        '3',
        '--episodes',
        '40',
        '--subsets',
        'test',
        'train',
        '--all-places',
    ]
    assert call(*arguments) == 0
    out = ' '.join(capsys.readouterr().out.split())
    assert 'no patient is on both sides of an episode; 64 images of 2 classes' in out
    assert 'moco (2 seeds)' in out
    folder = setting / 'work_dirs/toy/few_shot'
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f'few_shot.{end}' for end in ('csv', 'json', 'md', 'png')]
    first = json.loads((folder / 'few_shot.json').read_text())
    assert first['subsets'] == ['train', 'test'] and first['by_patient']
    assert first['patients'] == 32 and first['split_hash'] == 'ab'
    assert {
        (r['checkpoint'], r['number'], r['place'], r['shots']) for r in first['results']
    } == {
        (name, number, place, shots)
        for name, number in (('moco', 0), ('moco', 1), ('random', 0))
        for place in ('stem', 'stage1', 'stage2', 'stage3', 'stage4')
        for shots in (1, 4)
    }
    # One draw of episodes for each number of shots, whatever the network.
    assert len({(r['shots'], r['digest']) for r in first['results']}) == 2
    # Brightness is easy to see, whatever the weights.
    assert all(
        m['accuracy']['value'] > 0.6
        for m in first['means']
        if m['place'] == 'stem' and m['shots'] == 4
    )
    assert {m['checkpoint'] for m in first['means'] if 'difference' in m} == {'moco'}

    toy.delete_images(setting / 'images')
    assert call(*arguments) == 2
    assert 'few_shot.json exists' in capsys.readouterr().err
    assert call(*arguments, '--overwrite') == 0
    assert json.loads((folder / 'few_shot.json').read_text()) == first


def test_few_shot_refuses_several_labels_and_too_few_images(call, setting, capsys):
    assert call('few_shot', 'toy.py', '--checkpoints', 'random') == 2
    assert 'one class each' in capsys.readouterr().err
    toy.write_config(setting / 'toy.py', setting / 'images', labels='single')
    assert call('few_shot', 'toy.py', '--checkpoints', 'random') == 2
    error = capsys.readouterr().err
    assert '20 labelled and 15 others' in error and 'fewer queries' in error
