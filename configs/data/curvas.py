# CURVAS, slices of abdominal CT as 8-bit PNG: 14 patients, 3 organs.
slices = dict(type='medssl_mm.CurvasSlices', data_root='data/curvas', split='curvas-14')
