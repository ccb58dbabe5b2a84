"""Fuzzing: the properties of everything that reads what strangers write, tried for minutes."""
