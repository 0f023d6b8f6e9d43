# Put on a fine-tuning config (+mean_teacher): it also learns from all training
# slices without their labels, by agreement with a slow copy of itself. A labelled
# slice brings one without a label along, so that batches are twice as large.
model = dict(type='medssl_mm.MeanTeacher')
train_dataloader = dict(
    dataset=dict(unlabelled=dict()),
    collate_fn=dict(type='medssl_mm.collate_pairs'),
)
default_hooks = dict(target_update=dict(type='medssl_mm.TargetUpdateHook'))
