# Put on a pretraining (+whitened_projection): the
# embeddings are whitened before the loss gets them, so that they cannot collapse.
# In groups of 16 of the projector's 128 channels, at batches of 64.
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead', place='projection', num_groups=8, eps=1e-2
    )
)
