# Put on a linear decoder (+handmade): it reads hand-made features of each pixel, the
# floor; nothing is pretrained.
model = dict(
    backbone=dict(_delete_=True, type='medssl_mm.HandmadeFeatures'),
    decode_head=dict(in_index=0),
)
custom_hooks = []  # no normalisation to calibrate
