"""The arithmetic of chips: matrix units, orders of summation, and a model run in them."""
