"""BYOL on images of NIH, RSNA's labels beside it, then a classifier, by the tools."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl_mm.importers.sets.nih_cxr14 import FINDINGS
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
        make_slice(pixels.astype(np.uint16), (0, 0, 0), Modality='CR').save_as(
            folder / f's{number:02d}.dcm', enforce_file_format=True
        )
        lines.append(f's{number:02d},{int(ill)}')
    (folder / 'dataset.csv').write_text('\n'.join(lines) + '\n')


@pytest.mark.slow
def test_pretrained_probed_and_classified(tmp_path):
    write_rsna(tmp_path / 'source')
    run(tmp_path, 'prepare_data.py', 'rsna', '--src', 'source', '--out', 'data/rsna')
    write_image_set(
        tmp_path / 'data/nih-cxr14',
        patients=8,
        task='multi-label',
        classes=FINDINGS,
        side=48,
    )
    byol = 'selfsup/byol/byol_resnet50_16xb75-coslr-1000e_nih-cxr14-224.py'
    probes = 'selfsup/_base_/probes/rsna_224.py'
    run(
        tmp_path,
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
    (log,) = (tmp_path / 'byol').glob('*/vis_data/scalars.json')
    scores = [json.loads(line) for line in log.read_text().splitlines()]
    measured = [s for s in scores if 'probe/online_macro_AUROC' in s]
    # 14 images of pretraining and 24 of the probe: a pass of the pretraining is long.
    assert len(measured) == 2
    assert {'probe/online_accuracy', 'probe/online_macro_AUPR'} <= set(measured[-1])
    state = torch.load(tmp_path / 'byol/epoch_2.pth', weights_only=True)['state_dict']
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
        tmp_path,
        'train.py',
        classifier,
        '--work-dir',
        'classifier',
        '--cfg-options',
        *options,
    )
    assert 'target' in report  # which of the two encoders was taken
    run(
        tmp_path,
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
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    # The opacities are bright: features of few steps tell them.
    assert metrics['classification/macro_AUROC'] > 0.9
