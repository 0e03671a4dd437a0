"""The Muon optimizer: momentum with orthogonalised updates, for the weight matrices of hidden layers.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon, 2024).
Torch has it too, but in bf16, which takes seconds a step on processors without bf16 instructions; here it is float32,
with matrices of one shape in one batch.
"""

import torch

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the paper's polynomial: it takes singular values to between 0.7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. For the matrices of hidden layers only; AdamW is for the other parameters."""

    def __init__(self, matrices, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                update = orthogonal(torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices]))
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for matrix, direction in zip(matrices, update, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=scale)

    def _momentum(self, matrix, momentum):
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        buffer = state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(buffer, momentum)


def orthogonal(g):
    """About U V^T of each ``g`` = U S V^T [..., rows, columns], by a Newton-Schulz iteration in float32."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
