# Fine-tuning of all weights: 1000 X-rays of NIH ChestX-ray14, 64 px.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/xray_64.py',
    '../../data/nih1000.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(backbone=dict(depth=18))
train_dataloader = dict(sampler=dict(infinite=True))
# Findings of fewer than five patients (nine of the test subset) are shown, not
# averaged.
val_evaluator = dict(min_positive_patients=5)
test_evaluator = dict(min_positive_patients=5)
