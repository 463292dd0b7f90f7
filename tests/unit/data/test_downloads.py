import hashlib
import http.server
import logging
import re
import socket
import ssl
import threading
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from node_robustness.data.downloads import RemoteFile, check, fetch
from node_robustness.data.sources import find_source
from node_robustness.errors import UserError

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first folder of the path; the server counts the requests."""

    def do_GET(self):
        self.server.seen.append(self.path)
        how = self.path.split("/")[1]
        tries = self.server.seen.count(self.path)
        if how == "missing":
            self.send_error(404)
        elif how == "busy" or (how == "flaky" and tries == 1):
            self.send_error(503)
        elif how == "throttled" and tries == 1:
            self.send_response(429)
            self.send_header("Retry-After", self.path.split("/")[2])
            self.end_headers()
        elif how == "stalls-once" and tries == 1:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[:1000])
            self.server.released.wait(5)
        elif how == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/data.bin")
            self.end_headers()
        elif how == "silent":
            self.server.released.wait(5)
        else:
            body = b"another file" if how == "wrong" else BODY
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = how == "truncated" or (how == "breaks-once" and tries == 1)
            with suppress(ConnectionError):
                self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    server.released = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def down():
    """A URL where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/data.bin"


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Do not wait between attempts, but note for how long one would have."""
    noted = []
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=noted.append))
    return noted


def remote(*urls):
    return RemoteFile("data.bin", SHA256, urls, len(BODY))


def only_file(folder):
    (path,) = folder.iterdir()
    assert path.name == "data.bin"
    return path.read_bytes()


@pytest.mark.parametrize("how", ["good", "moved"])
def test_downloads_once(server, tmp_path, how):
    folder = tmp_path / "new" / "folder"
    wanted = remote(f"{server.url}/{how}/data.bin")
    assert fetch(wanted, folder) == folder / "data.bin"
    assert only_file(folder) == BODY
    seen = list(server.seen)
    fetch(wanted, folder)
    assert server.seen == seen


def test_a_file_already_there_needs_no_network(tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY)
    assert fetch(remote(), tmp_path).read_bytes() == BODY


def test_a_damaged_file_is_replaced(server, tmp_path, caplog):
    damaged = bytearray(BODY)
    damaged[1000] ^= 1
    (tmp_path / "data.bin").write_bytes(damaged)
    fetch(remote(f"{server.url}/good/data.bin"), tmp_path)
    assert only_file(tmp_path) == BODY
    assert "another checksum than expected" in caplog.text


def test_a_file_is_checked_again_before_it_is_read(tmp_path):
    path = tmp_path / "data.bin"
    with pytest.raises(UserError) as caught:
        check(remote(), tmp_path)
    remedy = "run snakemake with --forcerun fetch"
    assert str(caught.value) == f"{path}: is no longer there; {remedy}"
    path.write_bytes(BODY)
    check(remote(), tmp_path)
    path.write_bytes(BODY[:-1])
    with pytest.raises(UserError) as caught:
        check(remote(), tmp_path)
    assert str(caught.value) == f"{path}: has another SHA-256 than {SHA256}; {remedy}"


def test_a_damaged_file_stays_if_no_mirror_helps(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY[:-1])
    with pytest.raises(UserError, match="no mirror gave it"):
        fetch(remote(f"{server.url}/missing/data.bin"), tmp_path)
    assert only_file(tmp_path) == BODY[:-1]


@pytest.mark.parametrize(
    ("how", "tries"), [("missing", 1), ("wrong", 1), ("busy", 3), ("truncated", 3)]
)
def test_falls_back_to_the_next_mirror(server, tmp_path, how, tries):
    bad, good = f"/{how}/data.bin", "/good/data.bin"
    fetch(remote(server.url + bad, server.url + good), tmp_path)
    assert only_file(tmp_path) == BODY
    assert server.seen == [bad] * tries + [good]


def test_a_mirror_that_is_down(server, down, tmp_path, pauses):
    fetch(remote(down, f"{server.url}/good/data.bin"), tmp_path)
    assert only_file(tmp_path) == BODY
    assert pauses == [2.0]  # the first time at once


@pytest.mark.parametrize("how", ["flaky", "breaks-once", "stalls-once"])
def test_what_passes_is_tried_again(server, tmp_path, how, caplog):
    with caplog.at_level(logging.DEBUG):
        fetch(remote(f"{server.url}/{how}/data.bin"), tmp_path, timeout=0.5)
    assert only_file(tmp_path) == BODY
    assert len(server.seen) == 2
    assert re.search(r"trying again|Retry: ", caplog.text)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("86400", 60)])
def test_a_server_says_when_it_may_be_asked_again(server, tmp_path, pauses, asked, waited):
    fetch(remote(f"{server.url}/throttled/{asked}/data.bin"), tmp_path)
    assert only_file(tmp_path) == BODY
    assert pauses == [waited]


def test_a_certificate_that_is_not_trusted_is_refused_at_once(tmp_path, monkeypatch):
    asked = []

    def connect(self):
        asked.append(self.host)
        raise ssl.SSLCertVerificationError("self-signed certificate")

    monkeypatch.setattr("urllib3.connection.HTTPSConnection.connect", connect)
    with pytest.raises(UserError, match="no trusted secure connection"):
        fetch(remote("https://localhost:1/data.bin"), tmp_path)
    assert asked == ["localhost"]


def test_time_out(server, tmp_path):
    with pytest.raises(UserError, match=r"no answer within 0\.05 s"):
        fetch(remote(f"{server.url}/silent/data.bin"), tmp_path, attempts=1, timeout=0.05)
    assert list(tmp_path.iterdir()) == []


def test_one_line_lists_every_mirror(server, down, tmp_path):
    urls = [
        down,
        *(f"{server.url}/{how}/data.bin" for how in ("missing", "wrong", "busy", "truncated")),
        (tmp_path / "nowhere" / "data.bin").as_uri(),
        "ftp://example.org/data.bin",
    ]
    folder = tmp_path / "folder"
    with pytest.raises(UserError) as caught:
        fetch(remote(*urls), folder, attempts=2)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("data.bin: no mirror gave it")
    assert str(folder) in message
    reasons = (
        "connection failed",
        "HTTP status 404",
        f"wrong checksum {hashlib.sha256(b'another file').hexdigest()}",
        "HTTP status 503",
        "(broke off|connection failed)",
        "no such file",
        "neither an http",
    )
    for url, reason in zip(urls, reasons, strict=True):
        assert re.search(rf"{re.escape(url)} \([^)]*{reason}", message)
    assert message.endswith(", or correct the sha256 of your own file if it is the right one")
    assert list(folder.iterdir()) == []


def test_a_checksum_is_to_be_corrected_only_where_one_was_wrong(tmp_path):
    with pytest.raises(UserError) as caught:
        fetch(remote((tmp_path / "nowhere").as_uri()), tmp_path)
    assert str(caught.value).endswith(" or add a working one to the dataset's `mirrors`")


def test_file_url(tmp_path):
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / "data.bin").write_bytes(BODY)
    uri = (mirror / "data.bin").as_uri()
    assert "%20" in uri
    fetch(remote(uri), tmp_path / "folder")
    assert only_file(tmp_path / "folder") == BODY


@pytest.mark.parametrize("spelt", [str, lambda path: path.as_uri().removeprefix("file://")])
def test_file_url_of_an_odd_folder(tmp_path, spelt):
    folder = tmp_path / "a b#c?d=e&f'g"
    folder.mkdir()
    (folder / "data.bin").write_bytes(BODY)
    path = fetch(remote(f"file://{spelt(folder)}/data.bin"), tmp_path / "new")
    assert path.read_bytes() == BODY


ODD = [
    "my data #1.bin",
    "100%.bin",
    "a%20b.bin",
    "a?b=c&d.bin",
    "données 数.bin",
    "[x]{y}'\"~+;.bin",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_files_and_folders(tmp_path, name):
    """By a URL that was made of the path, and by one that somebody wrote."""
    mirror = tmp_path / name.removesuffix(".bin")
    mirror.mkdir()
    (mirror / name).write_bytes(BODY)
    written = f"file://{mirror}".replace("%", "%25")
    bases = [mirror.as_uri(), written, mirror.as_uri().replace("//", "//localhost", 1)]
    for number, base in enumerate(bases):
        files = {"archive": (name, SHA256)}
        (file,) = find_source("cifar_binary", [base], files=files, image_shape=(1, 1, 1)).files
        folder = tmp_path / f"folder {number}"
        assert fetch(file, folder) == folder / name
        assert (folder / name).read_bytes() == BODY


@pytest.mark.parametrize("name", ODD)
def test_odd_names_on_a_server(server, tmp_path, name):
    files = {"archive": (name, SHA256)}
    base = f"{server.url}/good/a folder"
    (file,) = find_source("cifar_binary", [base], files=files, image_shape=(1, 1, 1)).files
    fetch(file, tmp_path)
    (seen,) = server.seen
    assert unquote(seen) == f"/good/a folder/{name}"
    assert not set(seen) & set(" #?")


def test_full_disk_is_not_blamed_on_the_mirror(server, tmp_path, monkeypatch):
    class Full(nullcontext):
        def __enter__(self):
            return self

        def write(self, piece):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("node_robustness.data.downloads._shown", lambda *_: Full())
    with pytest.raises(UserError, match=r"data\.bin: no space left"):
        fetch(remote(f"{server.url}/good/data.bin"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress_bar(server, tmp_path, capfd):
    fetch(remote(f"{server.url}/good/data.bin"), tmp_path / "shown")
    assert "data.bin: 100%" in capfd.readouterr().err
    fetch(remote(f"{server.url}/good/data.bin"), tmp_path / "hidden", progress=False)
    assert capfd.readouterr().err == ""


def test_the_log_may_be_the_callers(server, tmp_path, caplog):
    log = logging.getLogger("a.rule")
    with caplog.at_level(logging.INFO, logger="a.rule"):
        fetch(remote(f"{server.url}/good/data.bin"), tmp_path, log=log)
    assert [record.name for record in caplog.records] == ["a.rule"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd", "..\\x"])
def test_names_are_plain(name):
    with pytest.raises(UserError, match="plain name"):
        RemoteFile(name, SHA256, ())
