import pytest
import torch

from previts.models.heads import build_head


def test_heads_are_their_formulas():
    torch.manual_seed(0)
    linear, mlp, pooled = build_head("linear", 16, 4), build_head("mlp", 16, 4), torch.randn(3, 16)
    torch.testing.assert_close(linear(pooled), pooled @ linear.out.weight.T + linear.out.bias)
    hidden = (pooled @ mlp.hidden.weight.T + mlp.hidden.bias).clamp(min=0)
    assert hidden.shape == (3, 16)
    torch.testing.assert_close(mlp(pooled), hidden @ mlp.out.weight.T + mlp.out.bias)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_pull_back_is_the_gradient(kind):
    torch.manual_seed(0)
    head = build_head(kind, 16, 4).double()
    pooled, direction = torch.randn(3, 16).double().requires_grad_(), torch.randn(3, 4).double()
    (expected,) = torch.autograd.grad((head(pooled) * direction).sum(), pooled)
    torch.testing.assert_close(head.pull_back(pooled, direction), expected, rtol=1e-13, atol=1e-14)
