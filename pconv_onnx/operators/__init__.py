"""The operators of the domain `pconv`: one module an operator, with its node, reference and function body."""
