# Pictures as networks of ImageNet see them: 224 px, its mean and deviation.
encoder = dict(
    preprocessing=dict(size=224, resize_mode='short', interpolation='bicubic'),
    trained_on=['imagenet'],
)
