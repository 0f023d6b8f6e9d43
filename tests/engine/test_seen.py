"""What a run takes over, records and refuses to score."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS, TRANSFORMS
from torch import nn

import medssl_mm.registry  # noqa: F401
from medssl_mm.engine import launch
from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.engine.seen import cases_of, seen_in_file
from medssl_mm.errors import UserError
from medssl_mm.provenance import Seen, sentences
from medssl_mm.store import open_store
from medssl_mm.store.splits import Split, save_split
from tests.distributed import run_processes
from tests.engine import toy


@TRANSFORMS.register_module(force=True)
class SeenVector:
    """Four numbers in the place of a slice."""

    def __call__(self, sample):
        return dict(inputs=torch.full((4,), sample['slice_index'] / 10))


class _Head(nn.Linear):
    def predict(self, features):
        return self(features)


@MODELS.register_module(force=True)
class SeenModel(BaseModel):
    """Pretrained, or with a head that predicts."""

    def __init__(self, predicts=False):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.head = (_Head if predicts else nn.Linear)(4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        value = self.head(self.backbone(inputs))
        if mode != 'loss':
            return [value.mean()]
        return dict(loss=value.square().mean())


@pytest.fixture
def root(tmp_path, make_store):
    """Six cases; 'a' trains on 0 to 3, 'b' on 2 to 5."""
    folder = tmp_path / 'store'
    make_store(folder, patients=6)
    for name, train, val, test in (('a', '012', '3', '45'), ('b', '34', '5', '01')):
        parts = dict(train=train, val=val, test=test, pretrain=train + val)
        save_split(
            folder,
            Split(name, 'tiny', {k: [f'p{n}-0' for n in v] for k, v in parts.items()}),
        )
    return str(folder)


def config(root, work_dir, split, predicts, **changes):
    settings = toy.config(work_dir)
    settings['train_cfg']['max_epochs'] = 1
    settings['model'] = dict(type='SeenModel', predicts=predicts)
    train = 'train' if predicts else 'pretrain'
    for name, subset in (('train', train), ('val', 'val'), ('test', 'test')):
        settings[f'{name}_dataloader'] = dict(
            copy.deepcopy(settings[f'{name}_dataloader']),
            dataset=dict(
                type='medssl_mm.SliceDataset',
                data_root=root,
                split=split,
                subset=subset,
                pipeline=[dict(type='mmengine.SeenVector')],
            ),
        )
    # So that other processes know the classes of this file.
    settings['custom_imports']['imports'].append('tests.engine.test_seen')
    settings.update(changes)
    return Config(settings)


def stages(path, root):
    """What a checkpoint says: stage, split, cases."""
    known = {c.content_sha256[:16]: c.case_id[1] for c in open_store(root).infos()}
    return {
        (one.stage, one.protocol): ''.join(sorted(known[c] for c in one.contents))
        for one in seen_in_file(path).shown
    }


def test_two_processes_write_the_same_record(root, tmp_path):
    run(config(root, tmp_path / 'one', 'a', predicts=True))
    run_processes(_run_in_group, 2, root, str(tmp_path / 'two'))
    one, two = (seen_in_file(tmp_path / n / 'epoch_1.pth') for n in ('one', 'two'))
    assert one == two and one


def _run_in_group(root, work_dir):
    RUNNERS.build(config(root, work_dir, 'a', True, launcher='pytorch')).train()


def run(settings, **kwargs):
    runner = launch.make_runner(settings, **kwargs)
    runner.train()
    return runner


def test_the_record_goes_through_all_steps(root, tmp_path):
    run(config(root, tmp_path / '1', 'a', predicts=False))
    first = tmp_path / '1' / 'epoch_1.pth'
    assert stages(first, root) == {('pretrain', 'a'): '0123'}
    hooks = toy.config(tmp_path)['default_hooks']
    hooks['checkpoint'] |= dict(save_best='mean', rule='less')
    tuned = config(
        root, tmp_path / '2', 'a', True, load_from=str(first), default_hooks=hooks
    )
    run(tuned)
    second = tmp_path / '2' / 'epoch_1.pth'
    known = {('pretrain', 'a'): '0123', ('train', 'a'): '012'}
    assert stages(second, root) == known
    best = next((tmp_path / '2').glob('best_*.pth'))
    assert stages(best, root) == {**known, ('choice', 'a'): '3'}
    # Resumed, the record is that of a run that was never interrupted.
    longer = config(
        root, tmp_path / '2', 'a', True, load_from=str(first), default_hooks=hooks
    )
    longer.train_cfg.max_epochs = 2
    run(longer, resume='auto')
    assert stages(tmp_path / '2' / 'epoch_2.pth', root) == known
    last = config(
        root, tmp_path / '3', 'b', False, load_from=str(second), allow_seen=True
    )
    run(last)
    assert stages(tmp_path / '3' / 'epoch_1.pth', root) == {
        **known,
        ('pretrain', 'b'): '345',
    }


def test_a_test_on_cases_of_the_training_is_refused_or_recorded(root, tmp_path):
    run(config(root, tmp_path / '1', 'a', predicts=True))
    weights = str(tmp_path / '1' / 'epoch_1.pth')
    test = config(root, tmp_path / '2', 'b', predicts=True)
    with pytest.raises(UserError, match=r'epoch_1.pth: 2 of 2 .*\(p0-0, p1-0\)'):
        launch.make_runner(test, checkpoint=weights).test()
    allowed = launch.make_runner(
        config(root, tmp_path / '3', 'b', True), checkpoint=weights, allow_seen=True
    )
    allowed.test()
    assert allowed.seen_in_test['train']['names'] == ['p0-0', 'p1-0']
    own = launch.make_runner(
        config(root, tmp_path / '4', 'a', True), checkpoint=weights
    )
    own.test()
    assert sentences(own.seen_in_test) == []


def test_training_tells_at_its_start_what_pretraining_saw(root, tmp_path):
    run(config(root, tmp_path / '1', 'a', predicts=False))
    weights = str(tmp_path / '1' / 'epoch_1.pth')
    tuned = config(root, tmp_path / '2', 'b', predicts=True, load_from=weights)
    with pytest.raises(UserError, match=r'test_dataloader .*\(p0-0, p1-0\) .*pretrain'):
        run(tuned)
    assert not list((tmp_path / '2').glob('*.pth'))


def test_validation_on_training_cases_is_refused(root, tmp_path):
    settings = config(root, tmp_path / '1', 'a', predicts=True)
    settings.val_dataloader.dataset.subset = 'train'
    with pytest.raises(
        UserError, match=r'val_dataloader of this run: 3 of 3 validation'
    ):
        run(settings)


def test_weights_without_a_record_are_told_in_a_line(root, tmp_path):
    path = tmp_path / 'old.pth'
    torch.save(dict(state_dict=SeenModel(True).state_dict()), path)
    test = config(root, tmp_path / '1', 'a', predicts=True)
    runner = launch.make_runner(test, checkpoint=str(path))
    runner.test()
    assert sentences(runner.seen_in_test) == [
        'whether any of the 2 test cases was seen is not known: no record of what was '
        'seen comes with old.pth'
    ]


def test_a_loaded_backbone_knows_what_its_file_has_seen(root, tmp_path):
    run(config(root, tmp_path / '1', 'a', predicts=False))
    path = tmp_path / '1' / 'epoch_1.pth'
    backbone = nn.Linear(4, 4)
    load_pretrained_backbone(backbone, path)
    assert backbone.provenance == seen_in_file(path)
    # As a part of a model, it is what the run begins with.
    model = SeenModel(predicts=True)
    model.backbone = backbone
    tuned = launch.make_runner(config(root, tmp_path / '2', 'a', predicts=True))
    tuned.model = model
    tuned.train()
    assert stages(tmp_path / '2' / 'epoch_1.pth', root) == {
        ('pretrain', 'a'): '0123',
        ('train', 'a'): '012',
    }


def test_data_of_other_libraries_are_not_known(tmp_path):
    assert cases_of(toy.ToyData()) == ([], ['ToyData'])
    toy.train(toy.config(tmp_path))
    found = seen_in_file(tmp_path / 'epoch_4.pth')
    assert found == Seen(unknown=('the data of ToyData',))
