"""The HTTP layer: what is repeated, what is not, and what every failure becomes."""

from __future__ import annotations

import inspect
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from pydantic import SecretStr

from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    GenerationError,
    InvalidRequestError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    ServiceTimeoutError,
    SlipwayError,
    TransientError,
    UnavailableError,
)
from slipway.services.http import (
    NO_RETRY,
    RetryPolicy,
    Service,
    Timeouts,
    call,
    download,
    json_body,
    make_client,
)
from slipway.services.http_errors import bare_url, retry_after_seconds, translate, translated

TOKEN = "pb_canary_5f2e81c0"
SERVICE = Service(
    name="Test service",
    token_variable="TEST_TOKEN",
    address_variable="TEST_URL",
    secrets=frozenset({TOKEN}),
)


@pytest.fixture
async def client(server):
    async with make_client(server.url, token=SecretStr(TOKEN), service=SERVICE) as made:
        yield made


async def ask(client, waits, method="GET", *, idempotent=True, **options):
    response = await call(
        client, method, "/thing", service=SERVICE, idempotent=idempotent, retry=waits.policy, **options
    )
    return json_body(response, SERVICE)


async def test_a_reply_comes_back_as_json_and_the_token_goes_out(server, client, reply, waits):
    server.on("GET /thing", reply(json={"a": 1}))
    assert await ask(client, waits) == {"a": 1}
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_idempotent_request_is_repeated_after_passing_trouble(server, client, reply, waits, status):
    server.on("GET /thing", reply(status=status, json={}), reply(status=status, json={}), reply(json={"ok": True}))
    assert await ask(client, waits) == {"ok": True}
    assert waits.seconds == [0.25, 0.5]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 424, 500, 501])
async def test_what_a_repeat_cannot_help_is_not_repeated(server, client, reply, waits, status):
    server.on("GET /thing", reply(status=status, json={"error": "no"}))
    with pytest.raises(SlipwayError):
        await ask(client, waits)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_request_that_may_have_gone_through_is_not_repeated(server, client, reply, waits, status):
    server.on("POST /thing", reply(status=status, json={}))
    with pytest.raises(UnavailableError):
        await ask(client, waits, "POST", idempotent=False)
    assert len(server.seen) == 1


async def test_a_request_turned_away_is_repeated_even_if_not_idempotent(server, client, reply, waits):
    """429 says that nothing was done."""
    server.on("POST /thing", reply(status=429, json={}, headers={"Retry-After": "3"}), reply(json={}))
    await ask(client, waits, "POST", idempotent=False)
    assert waits.seconds == [3.0]


async def test_a_reset_is_repeated_only_if_idempotent(server, client, reply, waits):
    server.on("GET /thing", reply(reset=True), reply(json={}))
    await ask(client, waits)
    server.on("POST /thing", reply(reset=True), reply(json={}))
    with pytest.raises(UnavailableError, match="broke off"):
        await ask(client, waits, "POST", idempotent=False)
    assert server.count("POST /thing") == 1


async def test_attempts_are_bounded_and_the_last_answer_is_told(server, client, reply, waits):
    server.on("GET /thing", reply(status=503, json={"error": "maintenance"}))
    with pytest.raises(UnavailableError, match="503: maintenance") as caught:
        await ask(client, waits)
    assert len(server.seen) == 3
    assert caught.value.status_code == 503


async def test_a_wait_longer_than_the_budget_fails_at_once(server, client, reply, waits):
    """Waiting less than asked would only be refused again."""
    server.on("GET /thing", reply(status=429, json={}, headers={"Retry-After": "61"}))
    with pytest.raises(RateLimitedError) as caught:
        await ask(client, waits)
    assert caught.value.retry_after_seconds == 61
    assert "61 s" in caught.value.fix
    assert waits.seconds == []


async def test_total_seconds_bound_the_attempts(server, client, reply):
    now = [0.0]

    async def sleep(seconds):
        now[0] += seconds

    server.on("GET /thing", reply(status=503, json={}))
    policy = RetryPolicy(
        attempts=1000,
        total_seconds=10,
        first_wait_seconds=4,
        longest_wait_seconds=4,
        sleep=sleep,
        monotonic=lambda: now[0],
        fraction=lambda: 0.999999,
    )
    with pytest.raises(UnavailableError):
        await call(client, "GET", "/thing", service=SERVICE, idempotent=True, retry=policy)
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": format_datetime(datetime(2026, 1, 1, 0, 1, tzinfo=UTC), usegmt=True)}, 60.0),
        ({"Retry-After": format_datetime(datetime(2025, 1, 1, tzinfo=UTC), usegmt=True)}, 0.0),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_both_forms(headers, seconds):
    assert retry_after_seconds(httpx.Headers(headers), now=datetime(2026, 1, 1, tzinfo=UTC)) == seconds


async def test_retry_after_as_a_date_is_obeyed(server, client, reply, waits):
    when = datetime.now(UTC) + timedelta(seconds=20)
    server.on("GET /thing", reply(status=503, json={}, headers={"Retry-After": format_datetime(when)}), reply(json={}))
    await ask(client, waits)
    assert 15 < waits.seconds[0] <= 20


@pytest.mark.parametrize(
    "meaning",
    [
        (302, ProtocolError, "TEST_URL"),
        (400, InvalidRequestError, "correct"),
        (401, AuthenticationError, "TEST_TOKEN"),
        (403, AuthenticationError, "TEST_TOKEN"),
        (404, NotFoundError, "TEST_URL"),
        (408, ServiceTimeoutError, "again"),
        (409, ConflictError, "there already"),
        (413, InvalidRequestError, "correct"),
        (422, InvalidRequestError, "correct"),
        (424, GenerationError, "adapter"),
        (429, RateLimitedError, "concurrent"),
        (500, UnavailableError, "later"),
        (503, UnavailableError, "later"),
    ],
)
async def test_each_status_has_its_error_with_a_fix(server, client, reply, meaning):
    status, kind, words = meaning
    server.on("GET /thing", reply(status=status, json={"error": f"because {TOKEN}", "error_type": "generation"}))
    with pytest.raises(kind) as caught:
        await call(client, "GET", "/thing?secret=1", service=SERVICE, idempotent=True, retry=NO_RETRY)
    assert type(caught.value) is kind
    assert words in caught.value.fix
    assert caught.value.message == f"Test service: GET {server.url}/thing was answered {status}: because ***."
    assert (caught.value.status_code, caught.value.error_type) == (status, "generation")


@pytest.mark.parametrize(
    "shape",
    [
        ({"json": {"error": {"message": "no file"}}}, ": no file."),
        ({"json": {"detail": [{"loc": "x"}]}}, ': [{"loc": "x"}].'),
        ({"json": ["odd"]}, "."),
        ({"body": b"Failed to parse", "headers": {"Content-Type": "text/plain"}}, ": Failed to parse."),
        ({"body": b"caf\xc3\xa9 \xff", "headers": {"Content-Type": "text/plain; charset=hex"}}, ": caf\u00e9 \ufffd."),
        ({"body": b"no text", "headers": {"Content-Type": "text/plain; charset=utf-16"}}, ": no text."),
        ({"body": b"<html>nginx</html>", "headers": {"Content-Type": "text/html"}}, "."),
        ({"json": {"error": "x" * 9000}}, ": " + "x" * 500 + "."),
    ],
)
async def test_what_a_service_says_is_found_in_every_shape(server, client, reply, waits, shape):
    sent, said = shape
    server.on("GET /thing", reply(status=422, **sent))
    with pytest.raises(InvalidRequestError) as caught:
        await ask(client, waits)
    assert caught.value.message.endswith(f"was answered 422{said}")


async def test_a_token_in_a_services_word_for_its_error_is_masked(server, client, reply, waits):
    server.on("GET /thing", reply(status=422, json={"error": "no", "error_type": f"denied {TOKEN}"}))
    with pytest.raises(InvalidRequestError) as caught:
        await ask(client, waits)
    assert caught.value.error_type == "denied ***"


async def test_a_token_in_a_content_type_is_masked(server, client, reply, waits):
    server.on("GET /thing", reply(body=b"x", headers={"Content-Type": f"text/{TOKEN}"}))
    with pytest.raises(ProtocolError, match=r"text/\*\*\* that is not JSON"):
        await ask(client, waits)


async def test_garbage_with_success_is_a_protocol_error(server, client, reply, waits):
    server.on("GET /thing", reply(body=b"<html>welcome</html>", headers={"Content-Type": "text/html; charset=utf-8"}))
    with pytest.raises(ProtocolError, match="text/html that is not JSON"):
        await ask(client, waits)


async def test_an_empty_success_without_content_is_an_empty_object(server, client, reply, waits):
    server.on("DELETE /thing", reply(status=204))
    assert await ask(client, waits, "DELETE") == {}


async def test_a_refused_connection_names_the_variable(waits):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with make_client(url, token=None, service=SERVICE) as client:
            with pytest.raises(UnavailableError, match="no connection") as caught:
                await ask(client, waits, "POST", idempotent=False)
    assert "TEST_URL" in caught.value.fix
    assert len(waits.seconds) == 2, "nothing was sent, so even this is repeated"


async def test_a_slow_answer_is_a_timeout_and_not_repeated(server, reply, waits):
    server.on("GET /thing", reply(delay_seconds=1, json={}))
    async with make_client(server.url, token=None, service=SERVICE, timeouts=Timeouts(read_seconds=0.1)) as client:
        with pytest.raises(ServiceTimeoutError, match="no answer in time"):
            await ask(client, waits)
    assert len(server.seen) == 1


async def test_an_address_that_is_none_is_a_configuration_error():
    for url in ("ftp://host", "http://", "host:80:90", "http://[::1"):
        with pytest.raises(ConfigurationError, match="no address to call") as caught:
            make_client(url, token=None, service=SERVICE)
        assert "TEST_URL" in caught.value.fix


@pytest.mark.parametrize("text", ["", "  ", "pb_a\nb", "pb a", "pb_ü"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(text):
    with pytest.raises(ConfigurationError) as caught:
        make_client("http://h", token=SecretStr(text), service=SERVICE)
    assert "TEST_TOKEN" in str(caught.value)
    assert "pb" not in str(caught.value)


def test_a_line_break_at_the_end_of_a_token_is_forgiven():
    """Files and secrets stores like to add one."""
    client = make_client("http://h", token=SecretStr("pb_x\n"), service=SERVICE)
    assert client.headers["authorization"] == "Bearer pb_x"


def every_httpx_exception():
    return sorted(
        (item for item in vars(httpx).values() if inspect.isclass(item) and issubclass(item, Exception)),
        key=lambda item: item.__name__,
    )


@pytest.mark.parametrize("kind", every_httpx_exception(), ids=lambda kind: kind.__name__)
def test_every_httpx_exception_becomes_ours(kind):
    """A class that a new httpx adds fails here until it is given a meaning."""
    request = httpx.Request("GET", "http://user:secret@h/path?token=secret")
    error = {
        httpx.HTTPStatusError: lambda: kind("m", request=request, response=httpx.Response(500, request=request)),
        httpx.ResponseNotRead: kind,
        httpx.RequestNotRead: kind,
        httpx.StreamConsumed: kind,
        httpx.StreamClosed: kind,
    }.get(kind, lambda: kind(f"said {TOKEN}"))()
    with pytest.raises(SlipwayError) as caught, translated(SERVICE, "GET", request.url):
        raise error
    assert caught.value.fix
    assert "secret" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    if issubclass(kind, httpx.TimeoutException):
        assert isinstance(caught.value, TransientError)


def test_an_untrusted_certificate_has_its_own_fix():
    error = translate(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] ..."), SERVICE, "GET", "https://h")
    assert "SSL_CERT_FILE" in error.fix


def test_addresses_are_shown_without_credentials_and_query():
    assert bare_url("https://u:p@h:1/a/b?X-Amz-Signature=1#f") == "https://h:1/a/b"
    assert bare_url("http://[::1?token=x") == "http://[::1"


async def test_a_download_is_whole_or_absent(server, client, reply, tmp_path, waits):
    content = b"x" * 3_000_000
    target = tmp_path / "a.zip"
    cut_short = reply(body=content[:9], headers={"Content-Length": str(len(content)), "Connection": "close"})
    server.on("GET /file", reply(status=503, json={}), cut_short, reply(body=content))
    assert await download(client, "/file", target, service=SERVICE, retry=waits.policy) == len(content)
    assert target.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


async def test_a_failed_download_leaves_nothing(server, client, reply, tmp_path, waits):
    server.on("GET /file", reply(status=404, json={"error": {"message": "no archive"}}))
    with pytest.raises(NotFoundError, match="no archive"):
        await download(client, "/file", tmp_path / "a.zip", service=SERVICE, retry=waits.policy)
    assert list(tmp_path.iterdir()) == []
