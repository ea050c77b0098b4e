from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigError
from templates.links import BadLink, PreviewLinks, Tracking, TrackingStep, is_web_link, target_of
from tests.unit.mail_samples import BASE_URL, SIGNER

UTM = {"source": "carillon", "medium": "email", "campaign": "spring & sale"}
QUERY = "utm_source=carillon&utm_medium=email&utm_campaign=spring+%26+sale"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://a.example", f"https://a.example?{QUERY}"),
        ("https://a.example/p", f"https://a.example/p?{QUERY}"),
        ("https://a.example/p?x=1&x=2&y=", f"https://a.example/p?x=1&x=2&y=&{QUERY}"),
        ("https://a.example/p#top", f"https://a.example/p?{QUERY}#top"),
        ("https://a.example/p?x=a%20b+c#/route?z=1", f"https://a.example/p?x=a%20b+c&{QUERY}#/route?z=1"),
        ("https://a.example/?utm_source=me", "https://a.example/?utm_source=me&" + QUERY.split("&", 1)[1]),
        ("https://a.example/?utm_source=", "https://a.example/?utm_source=&" + QUERY.split("&", 1)[1]),
        ("HTTPS://A.example:8443/p;v=1", f"https://A.example:8443/p;v=1?{QUERY}"),
        (
            "https://bücher.example/größe?q=ö#ü",
            f"https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe?q=%C3%B6&{QUERY}#%C3%BC",
        ),
    ],
)
def test_utm_parameters_join_what_is_there(url: str, target: str) -> None:
    assert target_of(url, UTM) == target


def test_without_utm_a_link_stays_as_it_is() -> None:
    for url in ("https://a.example", "https://a.example/?a=b&&c#", "http://a.example/%7Euser?x=%2F"):
        assert target_of(url, {}) == url.rstrip("#")


@pytest.mark.parametrize(
    "url",
    [
        *("https://", "https:///p", "https://a b.example", "https://a.example/\r\nX: y", "https://a.example/\x00"),
        *(
            "https://[::1",
            "https://a.example:port/",
            "https://a.example/<script>",
            'https://a.example/"x',
            "https://\ud800.example",
        ),
        *("https://a.example/\u2028", "https://xn--.example".replace("xn--", "ü..ü")),
    ],
)
def test_what_is_no_url_is_no_target(url: str) -> None:
    with pytest.raises(BadLink):
        target_of(url, UTM)


OTHERS = ["javascript:x", "data:x", "file:///etc/passwd", "vbscript:x", "about:blank", "x", "", "//a.example", "a:b"]


@pytest.mark.parametrize("url", OTHERS)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(BadLink):
        is_web_link(url)


@given(st.text(max_size=60))
def test_a_target_is_always_a_plain_http_url(tail: str) -> None:
    try:
        target = target_of(f"https://a.example/{tail}", UTM)
    except BadLink:
        return
    parts = urlsplit(target)
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert (parts.scheme, parts.hostname) == ("https", "a.example")
    assert {name for name, _ in parse_qsl(parts.query)} >= {"utm_source", "utm_medium", "utm_campaign"}


def test_a_preview_registers_nothing() -> None:
    tracking = Tracking(TrackingStep(signer=SIGNER, base_url=BASE_URL, utm={}), 7, PreviewLinks())
    assert tracking.click("https://a.example").startswith(f"{BASE_URL}/c/")
    assert PreviewLinks().link_id("https://a.example") == 0


def test_own_links_are_never_wrapped_again() -> None:
    tracking = Tracking(TrackingStep(signer=SIGNER, base_url=BASE_URL + "/", utm={}), 7, PreviewLinks())
    for own in (*tracking.own, tracking.opened(), tracking.click("https://a.example")):
        assert tracking.anything(own) == own
        assert tracking.in_text(f"go to {own}.") == f"go to {own}."
    assert tracking.anything(f"{BASE_URL}/shop") != f"{BASE_URL}/shop"


@pytest.mark.parametrize("base", ["http://go.acme.example", "ftp://x", "", "https://a b", "https://" + "a" * 300])
def test_links_begin_with_https_or_this_machine(base: str) -> None:
    with pytest.raises(ConfigError, match="public_url"):
        TrackingStep(signer=SIGNER, base_url=base, utm={})
    for fine in ("https://go.acme.example", "http://127.0.0.1:8025", "http://localhost", "http://[::1]:80/x"):
        TrackingStep(signer=SIGNER, base_url=fine, utm={})
