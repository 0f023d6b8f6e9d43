# Pictures of 16 x 16 pixels, no network: the floor under every encoder, used as
# random:raw-pixels.
encoder = dict(
    title='raw pixels, 16 x 16',
    backbone=dict(type='medssl_mm.RawPixels', side=16),
    embedding_length=768,
    preprocessing=dict(size=64, interpolation='bilinear', normalisation='unit'),
    trained_on=[],
)
