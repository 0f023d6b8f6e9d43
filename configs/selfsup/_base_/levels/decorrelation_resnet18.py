# The last map of a ResNet-18 is whitened in groups of 32 channels: many more
# positions in a batch than channels.
decorrelation = dict(type='medssl_mm.DecorrelationHead', num_groups=16, eps=1e-2)
