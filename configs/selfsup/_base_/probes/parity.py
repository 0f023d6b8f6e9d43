# The online probe as InnerEye's, put on a config that has one: the encoder is in
# training mode meanwhile, so that the probe's images enter its running statistics,
# and the gradient has no limit.
default_hooks = dict(online_probe=dict(encoder_mode='train', max_grad_norm=None))
