"""The Kubernetes side: the only package that imports the `kubernetes` library.

That library costs memory and time at import, so this package is imported only when a server is
told to work with Kubernetes. What is decided here is how to talk to an API server, not about what.
"""
