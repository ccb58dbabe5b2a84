"""The proof that a grant of N gives exactly N redemptions, as a command: `python -m prove`."""
