# Grey values of MR, which have no unit: percentiles of each case become 0
# and 1.
normalize = dict(type='medssl_mm.PercentileNormalize')
