"""The rules of the product as pure functions and values: nothing here reads, writes or waits."""
