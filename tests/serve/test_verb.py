"""The verb: it prints the address, ends in order, removes its files, and says what is missing."""

from __future__ import annotations

import os
import signal
import socket
import sys
import urllib.error
import urllib.request

import pytest

from pdsynth.cli import main
from pdsynth.serve.server import is_loopback
from serving import start


@pytest.mark.slow
def test_ctrl_c_ends_the_server_and_removes_its_files(model, scan, tmp_path):
    process, address = start(model, tmp_path)
    try:
        with urllib.request.urlopen(address, timeout=60) as page:
            assert "Drop a scan" in page.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address[:-10], timeout=60)

        def ask(path, method, content=None):
            request = urllib.request.Request(address + path, content, method=method)
            return urllib.request.urlopen(request, timeout=60)

        ask("jobs", "POST")
        ask(f"jobs/1/files?name={scan.name}", "PUT", scan.read_bytes())
        ask(f"jobs/1/synthesis?scan={scan.name}&to=dmri", "POST")
        (folder,) = tmp_path.glob("pdsynth-serve-*")
        assert folder.stat().st_mode & 0o077 == 0
        assert [path.name for path in folder.rglob("*.nii.gz")][:1] == [scan.name]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, in the middle of the synthesis
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines()[0].startswith("Loading the model: up to two minutes")
    assert err.splitlines()[-2:] == ["The page has ended, and its files are removed.", "Stopped: by Ctrl-C."]
    assert "Traceback" not in out + err
    assert address.split("/")[-2] not in err  # no log of requests with the token
    assert list(tmp_path.iterdir()) == []


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["serve", *words])
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_missing_library_is_named_with_the_remedy(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("pdsynth.serve.server", "pdsynth.serve.app"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert refused(capsys).endswith("uvicorn is not installed, which the page needs. Use pip install 'pdsynth[serve]'.")


def test_a_port_in_use_is_named(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(capsys, str(model), "--port", str(port))
    assert f"Error: 127.0.0.1:{port}: cannot be the address of the page (Address already in use" in line


def test_another_machine_is_warned_of(model, capsys):
    line = refused(capsys, str(model), "--host", "192.0.2.1")  # an address that no machine has
    assert "Warning: everybody with the page's address can open it" in line and "192.0.2.1:0: cannot be" in line
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "0.0.0.0", "name.example")] == [True, True, False, False]
