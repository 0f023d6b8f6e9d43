# Grey values of 8-bit image files whose window is not known: 0-255 to 0-1.
normalize = dict(type='medssl_mm.ShiftScale', mean=0.0, std=255.0)
