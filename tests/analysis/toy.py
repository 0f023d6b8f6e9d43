"""Images in files, labels beside them, and configs over both."""

import json

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

SIZES = dict(train=40, val=16, test=24)
CLASSES = ('bright', 'left', 'rare')


@DATASETS.register_module(force=True)
class ToyFileImages(torch.utils.data.Dataset):
    """Images ``<root>/<subset>-<number>.npy``; two of each patient."""

    def __init__(
        self, root, subset, fraction=1.0, fraction_seed=0, pipeline=(), labels='multi'
    ):
        self.root = root
        self.subset = subset
        self.pipeline = list(pipeline)
        with open(f'{root}/{subset}.json', encoding='utf-8') as file:
            targets = json.load(file)
        patients = np.arange(len(targets) // 2)
        if fraction < 1:
            rng = np.random.default_rng(fraction_seed)
            kept = rng.permutation(patients)[: round(fraction * len(patients))]
            patients = np.sort(kept)
        self.numbers = [2 * p + part for p in patients for part in (0, 1)]
        self.labels = [self._label(targets[n], labels) for n in self.numbers]
        self.metainfo = dict(classes=CLASSES, protocol='toy', split_hash='ab')
        if labels == 'single':
            self.metainfo['classes'] = ('dark', 'bright')

    def _label(self, target, kind):
        if kind == 'multi':
            return [index for index, value in enumerate(target) if value]
        return dict(single=target[0], unknown=-1, none=None)[kind]

    def __len__(self):
        return len(self.numbers)

    def get_data_info(self, index):
        name = f'{self.subset}-{self.numbers[index]}'
        return dict(
            image_id=name,
            gt_label=self.labels[index],
            patient_id=f'{self.subset}-p{self.numbers[index] // 2}',
        )

    def __getitem__(self, index):
        info = self.get_data_info(index)
        image = np.load(f'{self.root}/{info["image_id"]}.npy')
        if 'noise' in self.pipeline:
            image = image + np.random.rand(*image.shape)
        # As the hosts pack it; features must not depend on labels.
        return dict(
            inputs=torch.from_numpy(image).float(), data_samples=info['gt_label']
        )


def write_images(root):
    """Write brighter images and images whose left half is brighter."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for subset, size in SIZES.items():
        targets = rng.integers(0, 2, (size, 2))
        # Rare: one image of the training, none of the others.
        rare = np.arange(size) == (0 if subset == 'train' else -1)
        for number, (bright, left) in enumerate(targets):
            image = rng.normal(0.4 * bright, 0.3, (1, 32, 32))
            image[..., :16] += 0.4 * left
            np.save(root / f'{subset}-{number}.npy', image)
        text = json.dumps(np.column_stack([targets, rare]).tolist())
        (root / f'{subset}.json').write_text(text)
    return root


def delete_images(root):
    for path in root.glob('*.npy'):
        path.unlink()


def backbone(depth=18):
    return dict(
        type='mmpretrain.ResNet',
        depth=depth,
        in_channels=1,
        base_channels=8,
        stem_channels=8,
    )


def write_config(path, root, labels='multi', **model):
    """Write a classification config and load it."""

    def loader(subset, pipeline):
        return dict(
            batch_size=8,
            num_workers=0,
            dataset=dict(
                type='ToyFileImages',
                root=str(root),
                subset=subset,
                labels=labels,
                pipeline=pipeline,
            ),
        )

    Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(
                imports=['medssl_mm.registry', 'tests.analysis.toy'],
                allow_failed_imports=False,
            ),
            model=dict(
                type='mmpretrain.ImageClassifier',
                data_preprocessor=dict(
                    type='mmpretrain.ClsDataPreprocessor', mean=[0.3], std=[2.0]
                ),
                backbone=model.pop('backbone', None) or backbone(),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(
                    type='mmpretrain.MultiLabelLinearClsHead',
                    num_classes=3,
                    in_channels=64,
                ),
                **model,
            ),
            train_dataloader=loader('train', ['noise']),
            val_dataloader=loader('val', []),
            test_dataloader=loader('test', []),
        )
    ).dump(path)
    return Config.fromfile(path)


def make_backbone(seed, depth=18):
    """Build a backbone whose running statistics are not the initial ones."""
    from medssl_mm.registry import MODELS

    torch.manual_seed(seed)
    model = MODELS.build(backbone(depth))
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, 1, 32, 32))
    return model


def write_checkpoint(path, seed=0, depth=18, kind='classification'):
    """Write a checkpoint with a backbone and parts that are of no use."""
    others = dict(
        classification=['head.fc.weight', 'head.fc.bias'],
        segmentation=['decode_head.conv_seg.weight'],
        pretraining=['neck.mlp.0.weight', 'queue', 'encoder_k.module.0.conv1.weight'],
    )[kind]
    model = make_backbone(seed, depth)
    state = {f'backbone.{n}': v for n, v in model.state_dict().items()}
    state.update({name: torch.zeros(2) for name in others})
    torch.save(dict(state_dict=state), path)
    model.eval()  # mmpretrain returns nothing here
    return path, model
