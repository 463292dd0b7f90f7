"""The decision of a reader at each time.

The head was trained on h(1) alone. Applied to an earlier h(t), it gives the decision of a network
whose body ends at t, not what the network "thinks" at t. A linear probe of h(t) (`probes`) is the
alternative.
"""

import torch
from torch import Tensor


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of a class minus the largest of the others, [n, T].

    Args:
        logits: [T, n, K].
        classes: of each image, int64 [n].
    """
    index = classes.expand(len(logits), -1)[..., None]
    own = logits.gather(2, index).squeeze(2)
    others = logits.scatter(2, index, -torch.inf).amax(2)
    return (own - others).T


def flip_times(logits: Tensor, clean_logits: Tensor, times: Tensor) -> Tensor:
    """The time from which the decision of a run differs from that of the clean run, [n].

    From this time on, the two differ at each time up to the last. NaN where they agree at the last
    time, or where a logit there is not finite. Decisions are compared at the same time, so that a
    reader that does not recognise either image yet has not flipped.

    Args:
        logits: of the run, [T, n, K].
        clean_logits: of the clean run, [T, n, K].
        times: [T].
    """
    differ = logits.argmax(2) != clean_logits.argmax(2)
    finite = (torch.isfinite(logits) & torch.isfinite(clean_logits)).all(2)
    from_here_on = (differ & finite).flip(0).cumprod(0).flip(0).bool()
    first = from_here_on.int().argmax(0)
    found = times.to(logits.device, logits.dtype)[first]
    return torch.where(from_here_on.any(0), found, torch.nan)
