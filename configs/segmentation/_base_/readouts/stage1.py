# Put on a linear decoder (+stage1): it reads stage 1 alone.
model = dict(decode_head=dict(in_index=0))
