"""Keys, certificates and sealed secrets: the only package that imports `cryptography`."""
