"""Whatever bytes arrive at the HTTP door: bodies, authorization headers, filters and paths that no client of ours would send."""

import itertools
import json
from base64 import b64encode, urlsafe_b64encode
from functools import partial
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca.statement import ReadStatement
from tests import hostile, keys
from tests.keys import SecurityKey
from tests.world import ORIGIN, World, authorization, spelled, uuid7

LOG = "/v1/log/entries"


# ----------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"statement=x&signature=y", "not JSON"),
        (b"{", "not JSON"),
        (b'{"statement":"x","signature":"y","possession":"z"', "not JSON"),
        (b'{"statement":"x","signature":"y","possession":"z"} {}', "not JSON"),
        (b"{'statement':'x'}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b'{"statement":"\xff","signature":"y","possession":"z"}', "not JSON"),
        (b'{"statement":"\xed\xa0\x80","signature":"y","possession":"z"}', "not JSON"),
        (b'{"statement":"\\ud800","signature":"y","possession":"z"}', "not JSON"),
        (b'{"statement":"a\nb","signature":"y","possession":"z"}', "not JSON"),
        (b"\0" * 100, "not JSON"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 12_000, "nested too deeply"),
        (b'{"statement":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deeply"),
        (b'{"a":' + b"1" * 60_000 + b"}", "not JSON"),
        (b'{"a":1e999999}', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"[]", "not a JSON object"),
        (b'["statement","signature","possession"]', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"1", "not a JSON object"),
        (b'"{}"', "not a JSON object"),
        (b"true", "not a JSON object"),
        (b"{}", "has exactly the texts"),
        (b'{"statement":"x","signature":"y"}', "has exactly the texts"),
        (b'{"statement":"x","signature":"y","possession":"z","person":"ana"}', "has exactly the texts"),
        (b'{"statement":"x","signature":"y","Possession":"z"}', "has exactly the texts"),
        (b'{"statement":"x","signature":"y","possession":null}', "has exactly the texts"),
        (b'{"statement":{},"signature":"y","possession":"z"}', "has exactly the texts"),
        (b'{"statement":"x","signature":["y"],"possession":"z"}', "has exactly the texts"),
        (b'{"statement":"x","signature":1,"possession":true}', "has exactly the texts"),
        (b'{"statement":"x","statement":"x","signature":"y","possession":"z"}', "stands twice"),
        (b'{"statement":"","signature":"","possession":""}', "ends early"),
        (b'{"statement":"{}","signature":"AAAA","possession":"AAAA"}', "the signature"),
        (b'{"statement":"{}","signature":"A-_A","possession":"AAAA"}', "the signature is not base64"),
        (b'{"statement":"{}","signature":" AAAA","possession":"AAAA"}', "the signature is not base64"),
        (b'{"statement":"{}","signature":"\xc3\xa9AA=","possession":"AAAA"}', "the signature is not base64"),
    ],
    ids=itertools.count(),
)
def test_a_body_that_is_no_request_is_malformed(source: bytes, words: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.post, source), 400, "malformed", words)


def test_a_body_that_says_a_thing_twice_is_refused_though_both_are_good(lasting_world: World) -> None:
    good = json.dumps(lasting_world.body("ana"))
    twice = good[:-1] + "," + json.dumps(lasting_world.body("ana", role="dev"))[1:]
    hostile.refused(lasting_world, partial(lasting_world.post, twice.encode()), 400, "malformed", "stands twice")
    assert lasting_world.post(good.encode()).status_code == 201


def test_a_good_body_with_one_member_more_is_refused(lasting_world: World) -> None:
    body = lasting_world.body("ana") | {"principals": "root@web"}
    hostile.refused(lasting_world, partial(lasting_world.post, body), 400, "malformed", "has exactly the texts")


def test_a_body_of_64_kib_is_read_and_a_larger_one_is_not(lasting_world: World) -> None:
    def padded(size: int) -> bytes:
        return json.dumps(lasting_world.body("ana")).encode().ljust(size)

    assert lasting_world.post(padded(65_536)).status_code == 201
    hostile.refused(lasting_world, partial(lasting_world.post, padded(65_537)), 413, "too-large", "too large")
    hostile.refused(lasting_world, partial(lasting_world.post, bytes(2**21)), 413, "too-large", "too large")


@given(source=st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0eE-+.tfn\x00d8', max_size=60).map(str.encode))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_the_server_fail(source: bytes, lasting_world: World) -> None:
    size = lasting_world.store.size()
    answer = lasting_world.post(source)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert lasting_world.store.size() == size


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_good_body_changed_in_one_place_is_refused_or_asks_the_same(data: st.DataObject, lasting_world: World) -> None:
    said = lasting_world.body("ana", reason="INC-12 disk full")
    good = json.dumps(said).encode()
    at, octet = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    answer = lasting_world.post(good[:at] + bytes([octet]) + good[at + 1 :])
    assert answer.status_code in (400, 401, 201), answer.text
    if answer.status_code == 201:
        request = lasting_world.entries()[-2]
        assert getattr(request, "statement", None) == said["statement"], "a statement that was not signed was acted on"


# ------------------------------------------------------------------ the request


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_request_is_posted(method: str, lasting_world: World) -> None:
    body = json.dumps(lasting_world.body("ana"))
    size = lasting_world.store.size()
    answer = lasting_world.http.open("/v1/requests", method=method, data=body)
    assert answer.status_code == 405
    assert lasting_world.store.size() == size


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/roles", LOG, "/v1/ca", "/log/checkpoint", "/log/tile/0/000", "/healthz", "/"])
def test_what_is_read_cannot_be_written(method: str, path: str, lasting_world: World) -> None:
    send = partial(lasting_world.http.open, path, method=method, data=b"{}")
    hostile.refused(lasting_world, send, 405, "method-not-allowed", "method")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/requests/",
        "/v1/requests/-1",
        "/v1/requests/1/",
        "/V1/requests",
        "/v1/requests%00",
        "/v1/%ff",
        "/v1/requests/../ca",
        "/%2e%2e/ca.toml",
        "/static/../ca.toml",
        "/static/x",
        "/jit-ssh.db",
        "/" + "x" * 10_000,
    ],
)
def test_a_path_that_is_not_there_is_not_found(path: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.http.get, path), 404, "not-found", "")


@pytest.mark.parametrize(
    "path",
    [
        "/log/tile/0/x999/x999/x999/x999/x999/x999/999",
        "/log/tile/63/000",
        "/log/tile/99/000",
        "/log/tile/0/000.p/0",
        "/log/tile/0/000.p/256",
        "/log/tile/0/-01",
        "/log/tile/0/\u0660\u0660\u0660",
        "/log/tile/0/000/../../../keys/ca",
        "/log/tile/entries",
        "/log/%00",
        "/log/keys/ca",
        "/log/" + "x999/" * 400 + "999",
    ],
)
def test_a_tile_that_no_log_has_is_malformed(path: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.http.get, path), 400, "malformed", "tile")


@pytest.mark.parametrize("path", ["/log/tile/0/001", "/log/tile/1/000", "/log/tile/0/x999/x999/999", "/log/tile/0/000.p/255"])
def test_a_tile_that_is_not_there_yet_is_not_found(path: str, lasting_world: World) -> None:
    hostile.refused(lasting_world, partial(lasting_world.http.get, path), 404, "not-found", "not there")


@pytest.mark.parametrize("host", ["<script>alert(1)</script>", "'\"><img>", "a b", "\x7f", "\xff", "[:", "x:y:z", "", "x" * 5000])
def test_the_page_for_browsers_shows_nothing_that_a_header_says(host: str, lasting_world: World) -> None:
    answer = lasting_world.http.get("/", headers={"Host": host})
    assert answer.status_code in (200, 400)
    assert "<script>" not in answer.text
    assert "<img>" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_who_comes_to_the_door_directly_does_not_choose_the_address_that_is_seen(lasting_world: World) -> None:
    body = json.dumps(lasting_world.body("ana"))
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-Ip": "203.0.113.9"}
    assert lasting_world.http.post("/v1/requests", data=body, headers=headers).status_code == 201
    assert getattr(lasting_world.entries()[-2], "address", None) == "127.0.0.1"


# ------------------------------------------------------------ the authorization


def read(world: World, path: str, header: str | None) -> hostile.Send:
    """`GET path` with this header."""
    return partial(world.http.get, path, headers=None if header is None else {"Authorization": header})


def said(world: World, path: str) -> bytes:
    """A statement to read this path, at this moment."""
    return spelled(ReadStatement(audience=ORIGIN, id=uuid7(), time=int(world.now), path=path), {})


@pytest.mark.parametrize("path", ["/v1/roles", LOG])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic YW5hOmFuYQ==",
        "Bearer x",
        "JIT-SSH",
        "JIT-SSH ",
        "JIT-SSH .",
        "JIT-SSH e30.e30",
        "JIT-SSH e30",
        "JIT-SSH e30.e30.e30",
        "JIT-SSH  e30.e30",
        "jit-ssh e30.e30",
        "JIT-SSH !!.!!",
        "JIT-SSH e30+.e30",
        "JIT-SSH _w.AAAA",
        "JIT-SSH \xff.\xff",
        "JIT-SSH " + "A" * 60_000,
    ],
)
def test_a_header_that_is_no_signed_statement_is_refused(path: str, header: str | None, lasting_world: World) -> None:
    ours = header is not None and header.startswith("JIT-SSH ")
    status, code = (400, "malformed") if ours else (401, "unsigned")
    hostile.refused(lasting_world, read(lasting_world, path, header), status, code, "")


def test_a_signed_header_is_bound_to_every_byte_of_its_path(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    for signed, sent in (
        ("/v1/roles", LOG),
        (LOG, "/v1/roles"),
        (LOG, f"{LOG}?actor=ana"),
        (f"{LOG}?actor=ana", LOG),
        (f"{LOG}?actor=ana", f"{LOG}?actor=bo"),
        (f"{LOG}?actor=ana", f"{LOG}?actor=ana&limit=1"),
        (f"{LOG}?actor=ana", f"{LOG}?actor=%61na"),
        (f"{LOG}?", LOG),
        ("/v1/roles/", "/v1/roles"),
        ("/V1/roles", "/v1/roles"),
    ):
        header = authorization(said(lasting_world, signed), ana)
        hostile.refused(lasting_world, read(lasting_world, sent, header), 401, "bad-signature", "reading something else")
    for path in ("/v1/roles", f"{LOG}?actor=ana"):
        assert lasting_world.read("ana", path).status_code == 200


@pytest.mark.parametrize("path", ["", "v1/roles", "https://other.example.com/", "/v1/r\u00f4les", "/v1/roles\n", "/v1/roles\0"])
def test_a_path_that_is_no_path_is_malformed(path: str, lasting_world: World) -> None:
    send = partial(lasting_world.read, "ana", "/v1/roles", path=path)
    hostile.refused(lasting_world, send, 400, "malformed", "not a path")


@pytest.mark.parametrize("query", [b"\xff", b"actor=\xff", b"\xed\xa0\x80", b"a=\xc3"])
def test_a_query_that_is_no_text_is_refused(query: bytes, lasting_world: World) -> None:
    """As bytes on the wire, which a test client would have escaped."""
    header = authorization(said(lasting_world, f"{LOG}?actor=ana"), lasting_world.people["ana"])
    for headers, status, code in (({}, 401, "unsigned"), ({"Authorization": header}, 401, "bad-signature")):
        environ = {"QUERY_STRING": query.decode("latin-1")}
        send = partial(lasting_world.http.get, LOG, headers=headers, environ_overrides=environ)
        hostile.refused(lasting_world, send, status, code, "")


@pytest.mark.parametrize("seconds", [-121, 121])
def test_a_stale_header_reads_nothing(seconds: int, lasting_world: World) -> None:
    time = int(lasting_world.now) + seconds
    hostile.refused(lasting_world, partial(lasting_world.read, "ana", "/v1/roles", time=time), 401, "stale", "121 s")
    assert lasting_world.read("ana", "/v1/roles", time=time - seconds // 121).status_code == 200


def test_a_header_for_another_log_or_by_a_stranger_reads_nothing(lasting_world: World) -> None:
    elsewhere = partial(lasting_world.read, "ana", "/v1/roles", audience="other.example.com")
    hostile.refused(lasting_world, elsewhere, 401, "wrong-audience", "other.example.com")
    header = authorization(said(lasting_world, "/v1/roles"), SecurityKey())
    hostile.refused(lasting_world, read(lasting_world, "/v1/roles", header), 401, "unknown-signer", "is nobody's here")


def test_a_header_changed_anywhere_reads_nothing(lasting_world: World) -> None:
    header = authorization(said(lasting_world, "/v1/roles"), lasting_world.people["ana"])
    assert read(lasting_world, "/v1/roles", header)().status_code == 200
    for at in range(8, len(header)):
        changed = header[:at] + ("A" if header[at] != "A" else "B") + header[at + 1 :]
        assert read(lasting_world, "/v1/roles", changed)().status_code in (400, 401)
    lasting_world.check()


def test_the_signature_that_counts_is_over_the_text_that_was_sent(lasting_world: World) -> None:
    ana = lasting_world.people["ana"]
    text, other = said(lasting_world, LOG), said(lasting_world, "/v1/roles")
    parts = (urlsafe_b64encode(part).decode().rstrip("=") for part in (text, keys.sshsig(ana, other)))
    hostile.refused(lasting_world, read(lasting_world, LOG, "JIT-SSH " + ".".join(parts)), 401, "bad-signature", "not one by")


# ------------------------------------------------------------- reading the log


@pytest.fixture
def told(world: World) -> World:
    """A log with entries of ana and bo, granted and refused, each with a word that nobody else says."""
    assert world.ask("ana", reason="INC-1 ana-secret").status_code == 201
    assert world.ask("bo", role="dev", reason="bo-secret").status_code == 201
    assert world.ask("bo", role="web-admin", reason="INC-2 bo-secret").status_code == 403
    assert world.ask("ana", role="nothing", reason="ana-secret").status_code == 403
    return world


def test_nobody_but_an_auditor_asks_for_anothers_entries(told: World) -> None:
    for other in ("bo", "eve", "@operator", "Ana", "ana ", "", "nobody", "bo' OR '1'='1"):
        path = f"{LOG}?{urlencode({'actor': other})}"
        hostile.refused(told, partial(told.read, "ana", path), 403, "forbidden", "only auditors")
    assert "bo-secret" in told.read("eve", f"{LOG}?actor=bo").text


def test_no_combination_of_filters_shows_a_byte_of_anothers_entries(told: World) -> None:
    values = {
        "actor": [None, "ana"],
        "role": [None, "dev", "web-admin"],
        "kind": [None, "request", "issue", "refuse", "policy"],
        "serial": [None, "3", "5"],
        "start": [None, "0"],
        "before": [None, "999"],
    }
    for chosen in itertools.product(*values.values()):
        query = {name: value for name, value in zip(values, chosen, strict=True) if value is not None}
        answer = told.read("ana", f"{LOG}?{urlencode(query)}" if query else LOG)
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        entries = [json.loads(each) for each in answer.json["entries"]]
        assert {each["actor"] for each in entries if each["index"] > 0} <= {"ana"}
        assert "bo" not in answer.text.replace("about", "").split('"')
        assert "bo-secret" not in answer.text
        assert told.people["bo"].public_key.line not in answer.text


def test_an_auditor_sees_every_entry(told: World) -> None:
    answer = told.read("eve", f"{LOG}?start=0&limit=1000")
    assert answer.json is not None
    assert [source.encode() for source in answer.json["entries"]] == list(told.store.entries(0, told.store.size()))


@pytest.mark.parametrize("name", ["since", "until", "serial", "start", "before", "limit"])
@pytest.mark.parametrize("value", ["-1", "1.5", "1e3", "", " 1", "1 ", "+1", "0x1", "\u0661", "NaN", "1; DROP TABLE nodes"])
def test_a_number_in_a_filter_is_a_whole_number(name: str, value: str, lasting_world: World) -> None:
    path = f"{LOG}?{urlencode({name: value})}"
    hostile.refused(lasting_world, partial(lasting_world.read, "eve", path), 400, "malformed", f"{name} is not a whole number")


@pytest.mark.parametrize("value", ["1" + "0" * 18, "9" * 5000])
def test_a_number_that_no_log_has_is_said_to_be_too_large(value: str, lasting_world: World) -> None:
    ask = partial(lasting_world.read, "eve", f"{LOG}?serial={value}")
    hostile.refused(lasting_world, ask, 400, "malformed", "serial is too large: '")


@pytest.mark.parametrize("name", ["since", "until", "serial", "start", "before", "limit"])
def test_the_largest_number_in_a_filter_finds_what_there_is(name: str, lasting_world: World) -> None:
    answer = lasting_world.read("eve", f"{LOG}?{name}={10**18 - 1}")
    assert answer.status_code == 200
    assert answer.json is not None
    assert len(answer.json["entries"]) == (min(lasting_world.store.size(), 1000) if name in ("until", "before", "limit") else 0)


@pytest.mark.parametrize("name", ["actor", "role", "kind"])
@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "ana'--", "%", "*", "\0", "ana\0", "x" * 5000, "\u202e", '"', "1) UNION SELECT hash FROM nodes--"]
)
def test_a_text_in_a_filter_is_compared_and_nothing_else(name: str, value: str, lasting_world: World) -> None:
    answer = lasting_world.read("eve", f"{LOG}?{urlencode({name: value})}")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["entries"] == []


@pytest.mark.parametrize("name", ["visible_to", "Actor", "actor ", "order", "person", "", "\u0430ctor"])
def test_a_filter_that_there_is_not_is_malformed_and_not_ignored(name: str, lasting_world: World) -> None:
    path = f"{LOG}?{urlencode({name: 'ana'})}"
    hostile.refused(lasting_world, partial(lasting_world.read, "ana", path), 400, "malformed", "there is no filter")


def test_a_filter_said_twice_shows_nothing_more(told: World) -> None:
    for path in (f"{LOG}?actor=ana&actor=bo", f"{LOG}?kind=request&actor=ana&kind=refuse&actor=bo"):
        assert "bo-secret" not in told.read("ana", path).text
    hostile.refused(told, partial(told.read, "ana", f"{LOG}?actor=bo&actor=ana"), 403, "forbidden", "only auditors")


@given(header=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255), max_size=60))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_makes_the_server_fail(header: str, lasting_world: World) -> None:
    packed = b64encode(header.encode("latin-1")).decode()
    for value in (header, f"JIT-SSH {header}", f"JIT-SSH {packed}.{packed}"):
        assert read(lasting_world, LOG, value)().status_code in (400, 401)
