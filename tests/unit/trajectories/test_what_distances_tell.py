"""What distances cannot tell: of a linear ODE, where a decision is lost."""

import torch


def test_adjoint_times_difference_is_constant_along_a_linear_ode():
    """Distances grow late under one equation and early under the other; the product does neither.

    The adjoint of a linear head at t is the gradient of the margin with respect to h(t).
    """
    torch.manual_seed(0)
    head, start = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    grown = []
    for matrix in (torch.diag(torch.tensor([4.0, -3, 1])), torch.diag(torch.tensor([-4.0, 3, 1]))):
        rotated = matrix.double() + 0.5 * torch.randn(3, 3, dtype=torch.float64)
        difference = torch.stack([torch.matrix_exp(rotated * t) @ start for t in times])
        adjoint = torch.stack([torch.matrix_exp(rotated * (1 - t)).T @ head for t in times])
        products = (adjoint * difference).sum(dim=1)
        torch.testing.assert_close(products, products[-1].expand(11), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(products[-1], head @ difference[-1], rtol=1e-9, atol=1e-9)
        grown.append(difference.norm(dim=1) / difference[0].norm())
    assert (grown[0] - grown[1]).abs().max() > 1
