"""No secret in any log line: a run with everything that can go right and wrong is read whole."""

import base64
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.installation import PATIENCE, Installation


def ask(token: dict[str, str], method: str, path: str, **headers: str) -> tuple[int, bytes]:
    context = ssl.create_default_context(cadata=token["ca"])
    base = token["url"].rsplit("/", 1)[0]
    request = urllib.request.Request(
        base + path,
        data=token["code"].encode() if method == "POST" else None,
        method=method,
        headers=headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_whole_run_leaves_no_secret_in_any_log(tmp_path: Path, log_format: str) -> None:
    run = Installation(tmp_path, GRANTSERVER_LOGS_FORMAT=log_format, GRANTSERVER_LOGS_LEVEL="debug")
    secrets: list[str] = []
    with run.serving():
        run.type("site", "set", "west", "--endpoint", "inter-router=west.example.com:55671")
        text = run.type("token", "issue", "-", "--site", "west", "--redemptions", "2")
        token = yaml.safe_load(text)["spec"]
        secrets.append(token["code"])
        grant = token["url"].rsplit("/", 1)[1]
        for number in range(3):
            status, body = ask(token, "POST", f"/{grant}", name="t", subject=f"site-{number}")
            assert status == (200 if number < 2 else 404)
            if status == 200:
                secret = next(yaml.safe_load_all(body))
                secrets.append(secret["data"]["tls.key"])
                secrets += base64.b64decode(secret["data"]["tls.key"]).decode().splitlines()[1:-1]
        # A code in places where it does not belong.
        assert ask(token, "POST", f"/{token['code']}")[0] == 404
        assert ask(token, "POST", f"/{grant}/{token['code']}")[0] == 404
        assert ask(token, "GET", f"/?code={token['code']}")[0] == 405
        assert ask(token, "GET", f"/{grant}", Authorization=f"Bearer {token['code']}")[0] == 200
        assert ask(token, "GET", f"/{grant}", Authorization=f"Basic {token['code']}")[0] == 403
        run.type("token", "inspect", "missing.yaml")
        run.type("grant", "list")
        run.type("doctor")
    secrets += re.findall(
        r"^1:[0-9a-f]{8}:(.+)$", (tmp_path / "data/sealing.keys").read_text(), re.MULTILINE
    )
    written = run.log.read_text() + run.said
    assert written.count("redeemed") >= 2
    for one in secrets:
        assert len(one) > 8
        assert one not in written
    assert "PRIVATE KEY" not in written
    for file in (tmp_path / "data").iterdir():
        if file.name != "sealing.keys":
            content = file.read_bytes()
            for one in secrets[:-1]:
                assert one.encode() not in content, f"{file.name} keeps a secret readable"
            assert b"PRIVATE KEY" not in content
