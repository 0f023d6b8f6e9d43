# Grey values of abdominal CT, the same in pretraining and segmentation.
# -200 to 300 HU: from fat to vessels in the arterial phase; the usual
# soft-tissue window (level 40, width 400) cuts the latter off.
normalize = dict(type='medssl_mm.CTWindow', level=50, width=500)
