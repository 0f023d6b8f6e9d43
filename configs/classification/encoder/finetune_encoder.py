# Fine-tuning of a pretrained encoder by SGD, as transfer tables use it; on other
# data as finetune_encoder.py+NAME.
_base_ = [
    '../_base_/models/encoder.py',
    '../_base_/datasets/encoder_224.py',
    '../../data/pneumoniamnist.py',
    '../_base_/schedules/sgd_finetune_5000.py',
]
train_dataloader = dict(sampler=dict(infinite=True))
