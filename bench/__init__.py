"""Measures GrantServer on one core against bare handshakes and the incumbent's way."""
