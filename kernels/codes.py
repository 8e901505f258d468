"""The integer codes of the operator schemas. Mirrors the enums of csrc/sparse/{spmm,sddmm}.h and csrc/tree/chart.h."""

MESSAGES = {"copy_u": 0, "copy_e": 1, "add": 2, "sub": 3, "mul": 4, "div": 5}
COPY_U, COPY_E, ADD, SUB, MUL, DIV = range(6)

REDUCES = {"sum": 0, "mean": 1, "min": 2, "max": 3, "prod": 4, "var": 5, "std": 6, "logsumexp": 7}
SUM, MEAN, MIN, MAX, PROD, VAR, STD, LOGSUMEXP = range(8)

ARG_NONE, ARG_POSITION, ARG_EDGE, ARG_SOURCE = range(4)

EDGE_OPS = {"copy": 0, "add": 1, "sub": 2, "mul": 3, "div": 4}
EDGE_COPY, EDGE_ADD, EDGE_SUB, EDGE_MUL, EDGE_DIV = range(5)

TARGETS = {"u": 0, "v": 1, "e": 2}
U, V, E = range(3)

# csrc/sparse/attention.h
ADDITIVE, GATV2, DOT = range(3)
HEAD_BLOCKS = 16

# csrc/sparse/edge_act.h
EDGE_ACTS = {
    name: code
    for code, name in enumerate(
        ("identity", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "softplus", "gelu", "gelu_tanh")
    )
}

DEP_MULTI, DEP_SINGLE, SPAN = range(3)
# Kinds of tree that have operators of their own.
SPANNING = SPANNING_MULTI, SPANNING_SINGLE = 3, 4

# What an empty group gives when the caller does not say.
EMPTY = {SUM: 0.0, MEAN: 0.0, MIN: 0.0, MAX: 0.0, PROD: 1.0, VAR: 0.0, STD: 0.0, LOGSUMEXP: float("-inf")}

# csrc/binary/quantize.h
(IDENTITY_FORWARD, SIGN, HEAVISIDE, TERNARY, LEVELS, HARDTANH, SINE, SQUARE, PRELU_FORWARD, TANH_LEVELS) = range(10)
(IDENTITY, CLIP, CLIP_STRICT, BOX, POLY, SWISH, BELL, FOURIER, COSINE, PRELU) = range(10)
SIGNED_SLOPES = SWISH, FOURIER, COSINE
# Slopes whose derivative is 0 wherever it exists.
STEPPED_SLOPES = IDENTITY, CLIP, CLIP_STRICT, BOX, PRELU

# csrc/binary/fff.h
ACTIVATIONS = {"identity": 0, "relu": 1, "gelu": 2, "silu": 3}

# csrc/sparse/rspmm.h
REL_MULS = {"mul": 0, "add": 1, "min": 2, "rotate": 3, "copy": 4}
REL_MUL, REL_ADD, REL_MIN, REL_ROTATE, REL_COPY = range(5)
REL_REDUCES = {"sum": 0, "mean": 1, "min": 2, "max": 3, "logsumexp": 4, "pna": 5}
REL_SUM, REL_MEAN, REL_LEAST, REL_LARGEST, REL_LSE, REL_PNA = range(6)
