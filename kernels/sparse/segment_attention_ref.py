"""Reference of attention within segments. The contract is csrc/sparse/segment_attention.h."""

from __future__ import annotations

import torch


def _forward(query, key, value, bias, qptr, kptr, scale):
    """Segment by segment."""
    outs, lses, pairs = [], [], 0
    q, k = qptr.tolist(), kptr.tolist()
    for q0, q1, k0, k1 in zip(q, q[1:], k, k[1:], strict=False):
        s = scale * torch.einsum("qhd,khd->qkh", query[q0:q1], key[k0:k1])
        if bias is not None:
            s = s + bias[pairs : pairs + s.shape[0] * s.shape[1]].reshape(s.shape)
            pairs += s.shape[0] * s.shape[1]
        lse = torch.logsumexp(s, 1) if k1 > k0 else s.new_full((q1 - q0, s.shape[2]), float("-inf"))
        p = (s - torch.where(lse == float("-inf"), 0, lse)[:, None]).exp()
        outs.append(torch.einsum("qkh,khd->qhd", p, value[k0:k1]))
        lses.append(lse)
    H, D = query.shape[1], value.shape[2]
    return torch.cat(outs or [value.new_zeros(0, H, D)]), torch.cat(lses or [value.new_zeros(0, H)])


def _wide(tensors, dtype):
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    return [None if t is None else t.detach().to(acc) for t in tensors]


def segment_attention(query, key, value, bias, qptr, kptr, offset, scale):
    out, lse = _forward(*_wide((query, key, value, bias), query.dtype), qptr, kptr, scale)
    return out.to(query.dtype), lse


def segment_attention_bwd(query, key, value, bias, out, lse, grad, qptr, kptr, offset, scale):
    dtype = query.dtype
    query, key, value, bias, out, grad = _wide((query, key, value, bias, out, grad), dtype)
    d_query, d_key, d_value = (torch.zeros_like(t) for t in (query, key, value))
    d_bias = [] if bias is not None else None
    delta, pairs = (out * grad).sum(2), 0
    q, k = qptr.tolist(), kptr.tolist()
    for q0, q1, k0, k1 in zip(q, q[1:], k, k[1:], strict=False):
        s = scale * torch.einsum("qhd,khd->qkh", query[q0:q1], key[k0:k1])
        if bias is not None:
            s = s + bias[pairs : pairs + s.shape[0] * s.shape[1]].reshape(s.shape)
            pairs += s.shape[0] * s.shape[1]
        p = (s - torch.where(lse[q0:q1] == float("-inf"), 0, lse[q0:q1])[:, None]).exp()
        ds = p * (torch.einsum("qhd,khd->qkh", grad[q0:q1], value[k0:k1]) - delta[q0:q1, None])
        d_query[q0:q1] = scale * torch.einsum("qkh,khd->qhd", ds, key[k0:k1])
        d_key[k0:k1] = scale * torch.einsum("qkh,qhd->khd", ds, query[q0:q1])
        d_value[k0:k1] = torch.einsum("qkh,qhd->khd", p, grad[q0:q1])
        if bias is not None:
            d_bias.append(ds.flatten(0, 1))
    d_bias = query.new_empty(0) if bias is None else torch.cat(d_bias or [bias])
    return tuple(t.to(dtype) for t in (d_query, d_key, d_value, d_bias))
