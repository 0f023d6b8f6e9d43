"""Pretraining leaves: every model of them trains a step on its images."""

import copy
import json
import math

import pytest
import torch

from tests.shipped import experiments

INTERMEDIATE = experiments('selfsup/intermediate')


@pytest.fixture(scope='module', autouse=True)
def _registries():
    import medssl_mm.registry  # noqa: F401


def smaller(model):
    """The model with a short queue and narrow projectors."""
    model = copy.deepcopy(model)
    model.queue_len = 64
    for level in model.multi_level_head.levels:
        if 'neck' in level:
            level.neck.update(hid_channels=128, out_channels=128)
    return model


def different_models(chosen_from):
    """One leaf for every model and optimizer among them.

    Further terms on grey and on colour images are taken for one.
    """
    chosen = {}
    for experiment in chosen_from:
        content = experiment.load()
        model = smaller(content.model).to_dict()
        if model['multi_level_head']['levels']:
            del model['backbone']['in_channels']
        key = json.dumps([model, content.optim_wrapper.to_dict()], sort_keys=True)
        chosen.setdefault(key, experiment)
    return list(chosen.values())


DIFFERENT = different_models(INTERMEDIATE)


@pytest.mark.slow
@pytest.mark.parametrize('experiment', DIFFERENT, ids=[p.stem for p in DIFFERENT])
def test_model_trains_a_step(experiment):
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, DefaultScope

    content = experiment.load()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(smaller(content.model)).train()
        model.backbone.init_weights()
        wrapper = build_optim_wrapper(model, content.optim_wrapper)
    channels = content.model.backbone.in_channels
    views = [torch.rand(4, channels, 64, 64) for _ in range(2)]
    logs = model.train_step(dict(inputs=views, data_samples=[]), wrapper)
    losses = {name: value.item() for name, value in logs.items() if 'loss' in name}
    assert all(map(math.isfinite, losses.values()))
    assert losses.pop('loss') == pytest.approx(sum(losses.values()), rel=1e-4)
    stages = [f'stage{level.stage}' for level in content.model.multi_level_head.levels]
    assert [name.split('_')[1] for name in losses] == ['contrastive', *stages]
    # Whatever had a gradient has momentum now.
    for name, value in model.named_parameters():
        learns = not name.startswith('encoder_k.')
        assert (value in wrapper.optimizer.state) == learns, name


def family(experiment):
    """Method, and what the configs of one table have in common."""
    method, _, rest = experiment.stem.partition('_')
    base, *parity = method.split('-parity')
    return base, (rest, bool(parity))


def test_rows_of_a_table_differ_in_the_terms_only():
    """Not in the start of the network, the schedule or the images."""
    tables = {}
    for experiment in INTERMEDIATE:
        method, key = family(experiment)
        content = experiment.load().to_dict()
        content['model']['multi_level_head'].pop('levels')
        for name in [name for name in content if name.endswith('_levels')]:
            del content[name]
        del content['work_dir']
        # The published code starts its plain method in another way.
        if key[1]:
            start = content['model']['backbone'].pop('zero_init_residual', False)
            assert start == (method != 'moco')
        tables.setdefault(key, {})[method] = content
    assert len(tables) == 8
    for rows in tables.values():
        assert set(rows) == {'moco', 'moco-mse', 'moco-btwins'}
        assert rows['moco-mse'] == rows['moco'] == rows['moco-btwins']


PARITY = [p for p in INTERMEDIATE if '-parity_' in p.name]


@pytest.mark.parametrize('experiment', PARITY, ids=[p.stem for p in PARITY])
def test_parity_with_the_published_code(experiment):
    """The settings that the published scripts have in common."""
    content = experiment.load()
    model = content.model
    assert model.neck.type == 'LinearNeck' and model.neck.out_channels == 128
    assert model.head.temperature == 0.07
    assert (model.get('queue_len', 65536), model.get('ema_decay', 0.999)) == (
        65536,
        0.999,
    )
    assert content.optim_wrapper.optimizer.to_dict() == dict(
        type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4, fused=True
    )
    assert not content.param_scheduler
    batch = {'nih-cxr14-512': 16, 'idc-255': 32, 'diabetic-retinopathy-299': 8}[
        experiment.stem.split('_')[-1]
    ]
    loader = content.train_dataloader
    assert loader.batch_size == batch and loader.drop_last
    assert f'_1xb{batch}-' in experiment.name
    assert loader.dataset.subset == 'train'
    types = [step.type for step in loader.dataset.pipeline]
    assert types == ['medssl_mm.ImageViews', 'medssl_mm.PackViews']
