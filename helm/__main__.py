"""Write what is made: `python -m helm`, and `python -m helm --manifests` where Helm is at hand."""

import sys

from helm.writing import written

for path, text in written(manifests="--manifests" in sys.argv[1:]).items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
