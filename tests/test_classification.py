"""Classification configs: a step of each, and whole runs, on toy images."""

import csv
import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope

from medssl_mm.engine import launch
from tests.shipped import experiments

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'classification'
EXPERIMENTS = experiments('classification')
NAMES = [experiment.stem for experiment in EXPERIMENTS]


@DATASETS.register_module(force=True)
class ToyImages(torch.utils.data.Dataset):
    """Noise, brighter where a class is present; two images of a patient."""

    def __init__(self, classes, multi_label, channels=1, start=0, size=32, images=12):
        self.metainfo = dict(
            classes=tuple(f'class {n}' for n in range(classes)),
            task='multi-label' if multi_label else 'single-label',
        )
        self.channels, self.start, self.size = channels, start, size
        self.images = images

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        number = self.start + int(index)
        count = len(self.metainfo['classes'])
        generator = torch.Generator().manual_seed(number)
        image = torch.rand(self.channels, self.size, self.size, generator=generator)
        if self.metainfo['task'] == 'multi-label':
            label = [n for n in range(count) if (number >> n % 3) & 1]
        else:
            label = number % count
        sample = DataSample().set_gt_label(label)
        if isinstance(label, list):
            sample.set_gt_score([float(n in label) for n in range(count)])
        sample.set_metainfo(
            dict(
                image_id=f'image{number}',
                patient_id=f'p{number // 2}',
                protocol='toy',
                split_hash='abc',
            )
        )
        return dict(inputs=image + bool(label), data_samples=sample)


def small(path, folder, **options):
    """A leaf on toy images, with small batches and a log of every step."""
    config = launch.load_config(path)
    for loader, start in (('train', 0), ('val', 100), ('test', 200)):
        settings = config[f'{loader}_dataloader']
        settings.update(batch_size=4, num_workers=0, persistent_workers=False)
        settings.dataset = dict(
            type='ToyImages',
            start=start,
            classes=config.model.head.num_classes,
            multi_label='MultiLabel' in config.model.head.type,
            channels=config.model.backbone.in_channels,
        )
    config.work_dir = str(folder)
    config.visualizer = dict(type='Visualizer')
    launch.apply_options(config, options)
    return config


@pytest.mark.parametrize('experiment', EXPERIMENTS, ids=NAMES)
def test_leaf_keeps_to_the_protocol(experiment):
    config = experiment.load()
    subsets = [
        config[f'{loader}_dataloader'].dataset.subset
        for loader in ('train', 'val', 'test')
    ]
    assert subsets == ['train', 'val', 'test']
    assert (
        len(
            {
                config[f'{loader}_dataloader'].dataset.split
                for loader in ('train', 'val', 'test')
            }
        )
        == 1
    )
    # Every image is evaluated, and once.
    for loader in (config.val_dataloader, config.test_dataloader):
        assert not loader.get('drop_last')
        assert not loader.sampler.shuffle and not loader.sampler.round_up
    # Chosen on the validation subset, never on the test subset.
    kept = config.default_hooks.checkpoint
    assert kept.save_best in ('classification/macro_AUROC', 'classification/macro_F1')
    assert kept.rule == 'greater'
    data = config.test_dataloader.dataset
    classes = DATASETS.get(data.type).METAINFO.get('classes')
    if data.get('binary'):
        classes = ('not referable', 'referable')
    if classes:
        assert config.model.head.num_classes == len(classes)
    # Several findings at once only on chest X-rays.
    assert ('MultiLabel' in config.model.head.type) == (
        data.type == 'medssl_mm.NIHChestXray14'
    )


@pytest.mark.slow
@pytest.mark.parametrize('experiment', EXPERIMENTS, ids=NAMES)
def test_leaf_takes_a_step(experiment, tmp_path):
    from mmengine.dataset import default_collate
    from mmengine.optim import build_optim_wrapper

    config = small(experiment.config, tmp_path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model)
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
        # Four images: too few for the classes that a leaf wants to count.
        metric = METRICS.build({**config.val_evaluator, 'min_positive_patients': 0})
        dataset = DATASETS.build(config.val_dataloader.dataset)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = default_collate([dataset[index] for index in range(4)])
    model.train()
    # Twice: the last layer of a residual branch starts at zero.
    for _ in range(2):
        losses = model.train_step(batch, optim_wrapper)
    assert losses['loss'] > 0
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    head = {'head.fc.weight', 'head.fc.bias'}
    if experiment.stem.startswith('lastlayer'):
        assert changed == head
    else:
        inner = 'encoder.backbone.' if experiment.name.endswith('_encoder') else ''
        assert {
            *head,
            f'backbone.{inner}conv1.weight',
            f'backbone.{inner}layer4.1.bn1.running_mean',
        } <= changed
    metric.dataset_meta = dataset.metainfo
    with torch.no_grad():
        metric.process(
            None, [sample.to_dict() for sample in model.eval().val_step(batch)]
        )
    assert 0 <= metric.evaluate(4)['classification/macro_AUROC'] <= 1


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.slow
def test_run_by_iterations_resumes_and_tests_its_best_weights(tmp_path):
    leaf = CONFIGS / 'nih1000' / 'finetune_resnet18_nih1000-64.py'
    options = {
        'train_cfg.max_iters': 6,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 3,
    }
    launch.make_runner(small(leaf, tmp_path / 'whole', **options)).train()
    stopped = small(leaf, tmp_path / 'parts', **options)
    launch.make_runner(stopped).train()
    for path in (tmp_path / 'parts').glob('*_6.pth'):
        path.unlink()
    (tmp_path / 'parts/last_checkpoint').write_text('iter_3.pth')
    resumed = small(leaf, tmp_path / 'parts', **options)
    launch.make_runner(resumed, resume='auto').train()
    first = weights(tmp_path / 'whole/iter_6.pth')
    second = weights(tmp_path / 'parts/iter_6.pth')
    for name, value in first.items():
        assert torch.equal(value, second[name]), name

    (best,) = (tmp_path / 'whole').glob('best_classification_macro_AUROC_*.pth')
    config = small(leaf, tmp_path / 'whole')
    scores = launch.make_runner(config, checkpoint=best).test()
    folder = tmp_path / 'whole' / 'test'
    summary = json.loads((folder / 'metrics.json').read_text())
    assert summary['mean']['auroc']['mean'] == scores['classification/macro_AUROC']
    assert summary['mean']['auroc']['low'] is not None
    assert (summary['protocol'], summary['patients']) == ('toy', 6)
    with (folder / 'predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row['image_id'] for row in rows) == [
        f'image{number}' for number in range(200, 212)
    ]


@pytest.mark.slow
def test_run_by_epochs(tmp_path):
    leaf = CONFIGS / 'nih_cxr14' / 'finetune_resnet50_nih-cxr14-512.py'
    config = small(
        leaf,
        tmp_path,
        **{
            'model.backbone.depth': 18,
            'model.head.in_channels': 512,
            'train_cfg.max_epochs': 2,
        },
    )
    runner = launch.make_runner(config)
    runner.train()
    assert runner.iter == 6
    assert (tmp_path / 'epoch_2.pth').is_file()
    assert list(tmp_path.glob('best_classification_macro_AUROC_epoch_*.pth'))
    # The cosine ends with the run.
    assert runner.optim_wrapper.get_lr()['lr'][0] < 3e-4 * 0.51


@pytest.mark.slow
def test_last_layer_run_calibrates_random_features_only(tmp_path):
    leaf = CONFIGS / 'nih1000' / 'lastlayer_resnet18_nih1000-64.py'
    options = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    launch.make_runner(small(leaf, tmp_path / 'random', **options)).train()
    (path,) = (tmp_path / 'random').glob('iter_2.pth')
    random = weights(path)
    assert not torch.equal(random['backbone.bn1.running_mean'], torch.zeros(64))
    again = small(leaf, tmp_path / 'given', **options)
    again.model.backbone.init_cfg.checkpoint = str(path)
    launch.make_runner(again).train()
    given = weights(tmp_path / 'given/iter_2.pth')
    for name, value in given.items():
        if name.startswith('backbone.'):
            assert torch.equal(value, random[name]), name
