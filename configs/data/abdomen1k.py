# AbdomenCT-1K, 4 organs. It ships no split; this one is made by
# tools/prepare_data.py abdomen1k ... --holdout 0.2 --val 0.1
slices = dict(
    type='medssl_mm.Abdomen1KSlices',
    data_root='data/abdomen1k',
    split='holdout-20-val-10-seed0',
)
