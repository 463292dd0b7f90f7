"""The classifiers: downsampling, a residual or ODE body, a head; and their gradients."""
