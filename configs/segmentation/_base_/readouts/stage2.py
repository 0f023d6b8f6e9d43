# Put on a linear decoder (+stage2): it reads stage 2 alone.
model = dict(decode_head=dict(in_index=1))
