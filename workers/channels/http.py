"""Any SMS provider that speaks HTTP, described in carillon.yaml.

Values in the request may hold {to} {from} {text} {ref} {parts} {receipt_url}. The answer is read by the rules the
file gives. Once the body is under way the outcome is unknown until the provider has answered definitely.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from requests.exceptions import ConnectTimeout
from urllib3.exceptions import NewConnectionError

from kernel.errors import ConfigError, GatewayDown, OutcomeUnknown, PermanentError, TransientError
from kernel.fields import duration
from kernel.gateways import HttpGateway
from templates.sms import ComposedSms
from workers.channels.port import Flight, Parcel, Receipt, one_by_one

_ANSWER_LIMIT = 64 * 1024


class SmsOverHttp(ABC):
    """What adapters share that send one SMS by one HTTP request, over one kept-alive session."""

    def __init__(self, *, timeout: str, receipt_url: str) -> None:
        self._timeout_s = duration(timeout).total_seconds()
        self._receipt_url = receipt_url
        self._session = new_session()

    def deliver(self, parcels: Sequence[Parcel], flight: Flight, keep_going: Callable[[], bool]) -> frozenset[int]:
        """Send the parcels one after another. See Channel.deliver."""
        return one_by_one(self._send, parcels, flight, keep_going)

    def close(self) -> None:
        """Close kept-alive connections."""
        self._session.close()

    def _send(self, parcel: Parcel, commit: Callable[[], None], retract: Callable[[], None]) -> Receipt:
        if not isinstance(parcel.content, ComposedSms):
            raise ConfigError("this gateway carries SMS only")
        request = self._request(parcel.content, parcel.ref)
        return self._read(post(self._session, request, self._timeout_s, commit, retract))

    @abstractmethod
    def _request(self, content: ComposedSms, ref: str) -> requests.Request:
        """Return the provider's request for one SMS; `ref` is our signed reference of it."""

    @abstractmethod
    def _read(self, answer: Answer) -> Receipt:
        """Return what the provider's answer means, or raise it as an error."""


class HttpChannel(SmsOverHttp):
    """One provider described in carillon.yaml."""

    def __init__(self, gateway: HttpGateway, *, receipt_url: str) -> None:
        super().__init__(timeout=gateway.timeout, receipt_url=receipt_url)
        self._gateway = gateway

    def _request(self, content: ComposedSms, ref: str) -> requests.Request:
        gateway = self._gateway
        values = {
            "to": content.address,
            "from": gateway.sender,
            "text": content.text,
            "ref": ref,
            "parts": str(content.parts),
            "receipt_url": self._receipt_url,
        }
        return requests.Request(
            gateway.method,
            gateway.url,
            headers={name: fill(value.get_secret_value(), values) for name, value in gateway.headers.items()},
            params=fill(gateway.query, values),
            json=fill(gateway.json_body, values),
            data=fill(gateway.form, values),
            auth=(gateway.username, gateway.password.get_secret_value())
            if gateway.username and gateway.password
            else None,
        )

    def _read(self, answer: Answer) -> Receipt:
        refuse_by_status(answer)
        reply = self._gateway.reply
        if reply.format == "text":
            status, data = answer.text.strip(), None
        else:
            data = answer.json()
            found = dig(data, reply.status) if reply.status else None
            status = "" if found is None else str(found)
        if reply.accepted and status not in reply.accepted:
            if status in reply.transient:
                raise TransientError(f"status {status}: {answer.excerpt}", code=answer.status)
            if reply.format == "text" and any(status.startswith(word) for word in reply.accepted):
                return Receipt(reply=answer.excerpt, code=answer.status)
            raise PermanentError(f"status {status or 'missing'}: {answer.excerpt}", code=answer.status)
        gateway_id = dig(data, reply.gateway_id) if data is not None and reply.gateway_id else None
        return Receipt(
            reply=answer.excerpt, code=answer.status, gateway_id=None if gateway_id is None else str(gateway_id)
        )


class Answer:
    """A provider's answer, read in full, at most 64 KiB of it."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode("utf-8", "replace")
        self.excerpt = f"{status} {self.text[:200]}".strip()

    def json(self) -> Any:
        """Return the body as JSON; a success that cannot be read leaves the outcome unknown."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise OutcomeUnknown(f"answer is not JSON: {self.excerpt}", code=self.status) from error


def new_session() -> requests.Session:
    """Return a session that follows no redirects' cookies, proxies or netrc of the environment."""
    session = requests.Session()
    session.trust_env = False
    return session


def post(
    session: requests.Session,
    request: requests.Request,
    timeout_s: float,
    commit: Callable[[], None],
    retract: Callable[[], None],
) -> Answer:
    """Send a request; translate what happens on the wire.

    Raises:
        GatewayDown: no connection could be had: nothing was sent.
        OutcomeUnknown: the body may have arrived and no whole answer came back.
    """
    try:
        prepared = session.prepare_request(request)
    except (requests.RequestException, ValueError) as error:
        raise GatewayDown(f"the gateway's request cannot be built: {error}", lasting=True) from error
    commit()
    try:
        with session.send(prepared, timeout=(10, timeout_s), allow_redirects=False, stream=True) as response:
            body = response.raw.read(_ANSWER_LIMIT, decode_content=True)
            return Answer(response.status_code, response.headers, body)
    except requests.RequestException as error:
        if _never_connected(error):
            retract()
            raise GatewayDown(f"cannot reach the gateway: {_reason(error)}") from error
        raise OutcomeUnknown(f"no answer: {_reason(error)}") from error
    except OSError as error:
        raise OutcomeUnknown(f"no whole answer: {error}") from error


def refuse_by_status(answer: Answer) -> None:
    """Raise what an HTTP status other than 2xx means."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in (429, 503):
        raise GatewayDown(f"busy: {answer.excerpt}", retry_after_s=_retry_after(answer))
    if status in (401, 403) or 300 <= status < 400:
        raise GatewayDown(f"refused: {answer.excerpt}", lasting=True)
    if status in (502, 504):
        # A proxy in between speaks: what stands behind it may have taken the message.
        raise OutcomeUnknown(f"gateway time-out: {answer.excerpt}", code=status)
    if status >= 500 or status in (408, 425):
        raise TransientError(answer.excerpt, code=status)
    raise PermanentError(answer.excerpt, code=status)


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """Return the value with {name} replaced in every string of it; other braces stay as they are."""
    if isinstance(value, str):
        for name, inner in values.items():
            value = value.replace("{" + name + "}", inner) if name != "text" else value
        return value.replace("{text}", values["text"])
    if isinstance(value, dict):
        return {key: fill(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, values) for inner in value]
    return value


def dig(data: Any, path: str) -> Any:
    """Return the value at a dotted path such as "messages.0.status"; None where there is none."""
    for step in path.split("."):
        if isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        elif isinstance(data, dict):
            data = data.get(step)
        else:
            return None
    return data


def _never_connected(error: requests.RequestException) -> bool:
    if isinstance(error, ConnectTimeout):
        return True
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    return isinstance(reason, NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    inner = error.args[0] if error.args else error
    return f"{type(error).__name__}: {getattr(inner, 'reason', inner).__class__.__name__}"


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
