"""BYOL, RSNA's labels beside it, then a classifier, by the tools.

On images of NIH, and as a converted file of InnerEye's settings says.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from medssl_mm.importers.sets.nih_cxr14 import FINDINGS
from medssl_mm.results import read_scalars
from medssl_mm.store.splits import load_split
from tests import tools
from tests.datasets.images import write_image_set
from tests.importers.dicom_files import make_slice

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
# With 8 channels, oneDNN's 7 x 7 convolution on channels-last images of 224 px writes
# beyond its memory (torch 2.14.1): plain mmpretrain crashes just so.
SMALL = (
    'model.backbone.depth=18',
    'model.backbone.base_channels=16',
    'model.backbone.stem_channels=16',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
)
# Pictures of one value everywhere, by the subset that they come to.
BLANK = {'train': 5, 'val': 10}


def run(folder, tool, *arguments):
    done = tools.run(tool, *arguments, folder=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def write_rsna(folder, patients=40):
    """Pictures as DICOM, one in four with a bright opacity."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ['subject,label']
    for number in range(patients):
        ill = number % 4 == 0
        pixels = rng.integers(0, 1000, (48, 48))
        if ill:
            pixels[12:36, 12:36] += 2000
        elif number in BLANK.values():
            pixels[:] = 500
        make_slice(pixels.astype(np.uint16), (0, 0, 0), Modality='CR').save_as(
            folder / f's{number:02d}.dcm', enforce_file_format=True
        )
        lines.append(f's{number:02d},{int(ill)}')
    (folder / 'dataset.csv').write_text('\n'.join(lines) + '\n')


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Folder of the runs, with the imported pictures of RSNA."""
    folder = tmp_path_factory.mktemp('rsna')
    write_rsna(folder / 'source')
    run(folder, 'prepare_data.py', 'rsna', '--src', 'source', '--out', 'data/rsna')
    split = load_split(folder / 'data/rsna', 'rsna-patients')
    for subset, number in BLANK.items():
        assert f's{number:02d}' in split[subset]
    return folder


def class_weights_of(folder):
    (written,) = folder.glob('*.py')  # the config of the run
    return Config.fromfile(written).default_hooks.online_probe.class_weights


@pytest.mark.slow
def test_pretrained_probed_and_classified(prepared):
    write_image_set(
        prepared / 'data/nih-cxr14',
        patients=8,
        task='multi-label',
        classes=FINDINGS,
        side=48,
    )
    byol = 'selfsup/byol/byol_resnet50_16xb75-coslr-1000e_nih-cxr14-224.py'
    probes = 'selfsup/_base_/probes/rsna_224.py'
    run(
        prepared,
        'train.py',
        f'{CONFIGS / byol}+{CONFIGS / probes}',
        '--work-dir',
        'byol',
        '--cfg-options',
        *SMALL,
        'train_dataloader.dataset.split=made',
        'train_cfg.max_epochs=2',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        'default_hooks.online_probe.num_workers=0',
        'default_hooks.online_probe.start_steps=0',
        'default_hooks.knn_probe.num_workers=0',
        'default_hooks.knn_probe.k=5',
    )
    (log,) = (prepared / 'byol').glob('*/vis_data/scalars.json')
    scores = [json.loads(line) for line in log.read_text().splitlines()]
    measured = [s for s in scores if 'probe/online_macro_AUROC' in s]
    assert class_weights_of(prepared / 'byol') == 'balanced'
    # 14 images of pretraining and 24 of the probe: a pass of the pretraining is long.
    assert len(measured) == 2
    assert {'probe/online_accuracy', 'probe/online_macro_AUPR'} <= set(measured[-1])
    state = torch.load(prepared / 'byol/epoch_2.pth', weights_only=True)['state_dict']
    assert not [name for name in state if 'probe' in name]
    assert any(name.startswith('target_net.module.0.') for name in state)

    classifier = CONFIGS / 'classification/rsna/lastlayer_resnet50_rsna-224.py'
    options = [
        *SMALL,
        'model.backbone.init_cfg.checkpoint=byol/epoch_2.pth',
        'train_cfg.max_epochs=2',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]
    report = run(
        prepared,
        'train.py',
        classifier,
        '--work-dir',
        'classifier',
        '--cfg-options',
        *options,
    )
    assert 'target' in report  # which of the two encoders was taken
    run(
        prepared,
        'test.py',
        classifier,
        'classifier/epoch_2.pth',
        '--work-dir',
        'test',
        '--out',
        'metrics.json',
        '--cfg-options',
        *options,
    )
    metrics = json.loads((prepared / 'metrics.json').read_text())
    # The opacities are bright: features of few steps tell them.
    assert metrics['classification/macro_AUROC'] > 0.9


# As the original's rsna_byol.yaml, but for sizes.
CONVERTED = """
dataset:
  name: RSNAKaggle
  dataset_dir: /datadrive/rsna_train
  num_workers: 0
train:
  seed: 3
  batch_size: 12
  output_dir: kaggle/self_supervised
  base_lr: 1e-3
  self_supervision:
    type: byol
    encoder_name: resnet18
    use_balanced_binary_loss_for_linear_head: True
scheduler:
  epochs: 2
preprocess:
  resize: 40
  center_crop_size: 32
augmentation:
  use_random_affine: True
  random_affine:
    max_angle: 180
    max_shear: 40
  use_random_crop: True
  random_crop:
    scale: (0.4, 1.0)
  use_random_horizontal_flip: True
  use_gamma_transform: True
  use_random_color: True
  random_color:
    brightness: 0.2
    contrast: 0.2
    saturation: 0.0
  use_elastic_transform: True
  elastic_transform:
    sigma: 4
    alpha: 34
    p_apply: 0.4
  use_random_erasing: True
  random_erasing:
    scale: (0.15, 0.4)
    ratio: (0.33, 3)
  add_gaussian_noise: True
  gaussian_noise:
    std: 0.05
"""


@pytest.mark.slow
def test_a_converted_file_trains(prepared):
    (prepared / 'rsna_byol.yaml').write_text(CONVERTED)
    options = ('innereye', 'rsna_byol.yaml', '--out', 'rsna_byol.py')
    run(prepared, 'convert_config.py', *options)
    log = run(
        prepared,
        'train.py',
        'rsna_byol.py',
        '--cfg-options',
        *SMALL[1:3],
        # Ten epochs of warm-up are for longer runs.
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        'default_hooks.online_probe.num_workers=0',
        'default_hooks.online_probe.start_steps=1',
    )
    # Its validation images are not pretrained on.
    assert 'are patients of the pretraining' not in log
    folder = prepared / 'work_dirs/kaggle/self_supervised/byol_seed_3'
    saved = torch.load(folder / 'epoch_2.pth', weights_only=True)
    steps = 2 * (24 // 12)
    assert saved['online_probe']['images_seen'] == 16 * steps
    assert saved['online_probe']['head']['1.weight'].shape == (2, 128)
    curves = read_scalars(folder)
    for name in ('probe/online_macro_AUROC', 'probe/online_loss'):
        assert curves[name][:, 0].tolist() == [0, 2, 4]
    assert np.isfinite(curves['loss'][:, 1]).all()
    assert class_weights_of(folder) == 'balanced'
