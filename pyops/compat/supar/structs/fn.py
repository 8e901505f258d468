"""supar.structs.fn."""
