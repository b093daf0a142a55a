"""Design: from hertz to coefficients, differentiable, in the type of what it is given."""
