"""What torch_scatter and pyg_lib have in common: reductions by index and pointers under their argument rules."""
