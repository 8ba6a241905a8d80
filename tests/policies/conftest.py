"""One thread for PyTorch: several threads wait for each other on a machine that is busy."""

import torch

torch.set_num_threads(1)
