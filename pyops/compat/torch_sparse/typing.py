"""Nothing of pyg_lib is used here."""

pyg_lib = object
WITH_PYG_LIB = False
WITH_INDEX_SORT = False
