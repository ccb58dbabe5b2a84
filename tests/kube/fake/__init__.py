"""A Kubernetes API server for tests, in one process, as far as GrantServer's needs go."""
