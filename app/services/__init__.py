"""The verbs of the product: each opens at most one write transaction, with no slow work in it."""
