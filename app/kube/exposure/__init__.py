"""How the server makes itself reachable from outside of the cluster that it runs in.

`ways` is the table of ways in; each has a module of its own with two pure functions: the objects
that it wants, and the addresses that are seen in them when others have done their part. `exposure`
acts on them; `issued_secret` and `kept_secret` are about the certificate that is shown there.
"""
