"""What the cases of every family share."""

import torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
