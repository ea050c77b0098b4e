"""Token buckets in Redis: one round trip for all buckets of a chunk, on Redis' own clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from workers.limits.buckets import HORIZON_MS, Ask, Flow, Turn

_PATIENCE_S = 1.0

# The same sums as workers.limits.buckets.share_out; one suite of tests runs over both.
_SCRIPT = """
local input = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local tokens, booked = {}, {}
for i, key in ipairs(KEYS) do
  local flow = input.flows[i]
  local level = redis.call('HMGET', key, 'tokens', 'at', 'booked')
  if level[1] then
    local passed = math.max(0, now - tonumber(level[2]))
    tokens[i] = math.min(flow[2], tonumber(level[1]) + passed * flow[1])
    booked[i] = math.max(now, tonumber(level[3]))
  else
    tokens[i] = flow[2]
    booked[i] = now
  end
end
local turns = {}
for n, ask in ipairs(input.asks) do
  local least = math.huge
  for _, i in ipairs(ask[2]) do
    least = math.min(least, tokens[i])
  end
  local granted = math.max(0, math.min(ask[1], math.floor(least + 1e-6)))
  local begin, decides = -1, ask[2][1]
  for _, i in ipairs(ask[2]) do
    tokens[i] = tokens[i] - granted
    local at = now
    if tokens[i] < 1 - 1e-6 then
      at = math.max(booked[i], now + (1 - tokens[i]) / input.flows[i][1])
    end
    if at > begin then
      begin, decides = at, i
    end
  end
  local rest = ask[1] - granted
  local turn = {string.format('%d', granted), '0', '0'}
  if rest > 0 then
    local step = 1 / input.flows[decides][1]
    if begin > now + input.horizon then
      begin = now + input.horizon
    else
      booked[decides] = begin + rest * step
    end
    turn[2] = string.format('%.3f', begin - now)
    turn[3] = string.format('%.6f', step)
  end
  turns[n] = turn
end
local left = {}
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, 'tokens', string.format('%.9f', tokens[i]), 'at', string.format('%.3f', now),
    'booked', string.format('%.3f', booked[i]))
  -- A bucket that is full again and has no turns given is as good as one that was never there.
  local full = (input.flows[i][2] - tokens[i]) / input.flows[i][1]
  redis.call('PEXPIRE', key, math.ceil(math.max(full, booked[i] - now)) + 1000)
  left[i] = string.format('%.9f', tokens[i])
end
return {turns, left}
"""


class RedisBuckets:
    """Buckets shared by every worker that reaches the same Redis. Its methods raise redis.exceptions.RedisError."""

    def __init__(self, url: str, prefix: str) -> None:
        """Take the server's URL (redis://, rediss:// or redis+socket://) and what keys begin with; connects later."""
        # Celery writes redis+socket:// where redis-py writes unix://.
        url = url.replace("redis+socket://", "unix://", 1)
        self._client = redis.Redis.from_url(url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S)
        self._script = self._client.register_script(_SCRIPT)
        self._prefix = prefix

    def take(self, flows: Mapping[str, Flow], asks: Sequence[Ask]) -> list[Turn]:
        """Take tokens; positions in `asks` count the buckets in the order of `flows`."""
        turns, _ = self._run(flows, asks)
        return [Turn(granted=int(one[0]), wait_ms=float(one[1]), step_ms=float(one[2])) for one in turns]

    def held(self, flows: Mapping[str, Flow]) -> list[float]:
        """Return what the buckets hold now, and take nothing."""
        _, left = self._run(flows, [])
        return [float(one) for one in left]

    def answers(self) -> bool:
        """Tell whether the server can be used."""
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def _run(self, flows: Mapping[str, Flow], asks: Sequence[Ask]) -> tuple[list[list[bytes]], list[bytes]]:
        said: dict[str, Any] = {
            "flows": [[flow.per_ms, flow.burst] for flow in flows.values()],
            "asks": [[ask.count, [at + 1 for at in ask.buckets]] for ask in asks],
            "horizon": HORIZON_MS,
        }
        turns, left = self._script(keys=[self._prefix + key for key in flows], args=[json.dumps(said)])
        return turns, left
