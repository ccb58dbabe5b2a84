from tests.kube.fixtures import fake_kube, kube, real_kube, real_pair

__all__ = ["fake_kube", "kube", "real_kube", "real_pair"]
