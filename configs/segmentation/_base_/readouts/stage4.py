# Put on a linear decoder (+stage4): it reads the last stage alone, as in the paper.
model = dict(decode_head=dict(in_index=3))
