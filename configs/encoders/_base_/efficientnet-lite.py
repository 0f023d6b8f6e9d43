# EfficientNet-Lite of TensorFlow: mean 127 and deviation 128, its padding.
encoder = dict(
    embedding_length=1280,
    preprocessing=dict(interpolation='bicubic', mean=[127 / 255], std=[128 / 255]),
    trained_on=['imagenet'],
    group='supervised',
)
