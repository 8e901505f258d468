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
- No semirings and no classes of dynamic programs (``DepTree``, ``CKY``, ...), no ``gumbel_crf``; ``AlignmentCRF`` and
  ``SentCFG`` raise NotImplementedError.
"""

from .._install import installers
from .chains import HMM, LinearChainCRF, SemiMarkovCRF
from .distributions import (
    AlignmentCRF,
    DependencyCRF,
    NonProjectiveDependencyCRF,
    SentCFG,
    StructDistribution,
    TreeCRF,
    deptree_nonproj,
    deptree_part,
)

install, uninstall = installers("torch_struct", __name__, ("distributions",))

__all__ = [
    "HMM", "AlignmentCRF", "DependencyCRF", "LinearChainCRF", "NonProjectiveDependencyCRF", "SemiMarkovCRF", "SentCFG",
    "StructDistribution", "TreeCRF", "deptree_nonproj", "deptree_part",
]  # fmt: skip
