"""The distributions of torch_struct (git, 2022) on structops: the same names, layouts and conventions.

``structops.compat.torch_struct.install()`` makes every later ``import torch_struct`` find this package.

Kept from torch_struct: ``[batch, head, child]`` potentials over words with root scores on the diagonal, inclusive spans,
chains as ``[batch, N - 1, to, from]``; events as one-hot tensors in the dtype of the potentials; ``[k, batch, ..]`` of ``kmax``
and ``topk``; lazily computed properties; multi-root projective trees and single-root non-projective ones by default.

Different, on purpose:

- ``multiroot`` belongs to the object (there: to the class, so that one object changes the others).
- The tensors given keep their ``requires_grad``, and no graph is built where no gradient is wanted (there: always).
- Potentials of -inf forbid exactly, with finite gradients. 16-bit potentials are summed in float32.
- ``cross_entropy`` and ``kl`` work for every structure; samples are exact and any number is drawn in one pass.
- Lengths may all be shorter than the potentials, also of chains.
- ``NonProjectiveDependencyCRF`` is right at any scale (there: biased by an epsilon, and wrong or NaN from 30 on), honours
  lengths, and has ``argmax``, ``max``, ``entropy``, ``kl`` and ``sample``.
- ``count`` gives the number of structures, rounded from its logarithm.
- ``topk`` and ``kmax`` beyond the number of structures give zeros and -inf.
- The classes of dynamic programs (``LinearChain``, ``SemiMarkov``, ``DepTree``, ``CKY_CRF``) answer in the semirings Log, Max,
  KMax, Sampled and MultiSampled, checkpointed or not, by the operators. Every other semiring, ``CKY``, ``Alignment``,
  ``AlignmentCRF`` and ``gumbel_crf`` are recurrences in torch, one cell at a time: for small inputs.
- ``SparseMaxSemiring`` adds -|w|^2 / 2 (there -|w|, which is not what the gradient is of). ``MultiSampledSemiring`` holds sample j
  in bit j. ``Autoregressive.sample_without_replacement`` is exact (there: noise without the condition on the parent).
- ``SentCFG`` counts rules over all spans together in its events and marginals (there: a tensor for every span).
"""

from .._install import installers
from .autoregressive import Autoregressive
from .chains import HMM, LinearChainCRF, SemiMarkovCRF
from .distributions import (
    DependencyCRF,
    NonProjectiveDependencyCRF,
    StructDistribution,
    TreeCRF,
    deptree_nonproj,
    deptree_part,
)
from .grammar import SentCFG
from .semirings import (
    CheckpointSemiring,
    CheckpointShardSemiring,
    CrossEntropySemiring,
    EntropySemiring,
    GumbelCRFSemiring,
    GumbelMaxSemiring,
    KLDivergenceSemiring,
    KMaxSemiring,
    LogSemiring,
    MaxSemiring,
    MultiSampledSemiring,
    SampledSemiring,
    Semiring,
    SparseMaxSemiring,
    StdSemiring,
    TempMax,
)
from .structs import CKY, CKY_CRF, Alignment, AlignmentCRF, DepTree, LinearChain, SemiMarkov, convert, unconvert

# The semirings with their own matrix products, there by genbmm.
FastLogSemiring, FastMaxSemiring, FastSampleSemiring = LogSemiring, MaxSemiring, SampledSemiring

install, uninstall = installers("torch_struct", __name__, ("distributions", "semirings"))

__all__ = [
    "CKY", "CKY_CRF", "HMM", "Alignment", "AlignmentCRF", "Autoregressive", "CheckpointSemiring", "CheckpointShardSemiring",
    "CrossEntropySemiring", "DepTree", "DependencyCRF", "EntropySemiring", "FastLogSemiring", "FastMaxSemiring",
    "FastSampleSemiring", "GumbelCRFSemiring", "GumbelMaxSemiring", "KLDivergenceSemiring", "KMaxSemiring", "LinearChain",
    "LinearChainCRF", "LogSemiring", "MaxSemiring", "MultiSampledSemiring", "NonProjectiveDependencyCRF", "SampledSemiring",
    "SemiMarkov", "SemiMarkovCRF", "Semiring", "SentCFG", "SparseMaxSemiring", "StdSemiring", "StructDistribution", "TempMax",
    "TreeCRF", "convert", "deptree_nonproj", "deptree_part", "unconvert",
]  # fmt: skip
