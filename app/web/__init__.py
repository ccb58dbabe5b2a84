"""The edge that speaks HTTP and TLS: it turns bytes into values and values into bytes."""
