"""Spans of time and their buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.watch.timerange import MAX_BUCKETS, QUICK, US, parse, resolve, step_for
from engine.errors import ConfigError

NOW = 1_790_000_123.7


def test_live_range_ends_at_the_next_whole_second_and_lacks_the_bucket_under_way() -> None:
    span = resolve(parse("5m"), NOW)
    assert (span.start_us, span.end_us, span.live) == (1_789_999_824 * US, 1_790_000_124 * US, True)
    assert span.step_s == 2
    last = span.first_bucket_s + span.buckets() * span.step_s
    assert 1_790_000_122 - span.step_s < last <= 1_790_000_122


def test_absolute_iso_and_microseconds_are_the_same() -> None:
    iso = parse("2026-11-24T12:00:00,2026-11-24 13:05+01:00")
    assert iso == parse(f"{1795521600 * US},{1795521900 * US}")
    assert parse(iso.text) == iso
    assert resolve(iso, NOW).buckets() == 150


def test_newest_and_all_follow_the_lake() -> None:
    span = resolve(parse("1m@newest"), NOW, newest_us=1000 * US + 5)
    assert (span.start_us, span.end_us, span.live) == (941 * US, 1001 * US, False)
    everything = resolve(parse("all"), NOW, bounds=(5, 99))
    assert (everything.start_us, everything.end_us) == (5, 100)


@pytest.mark.parametrize(
    "text", ["5", "5x", "0m", "9999d", "5m@then", "2,1", "a,b", "1,", "99999999999999999999,3", "2026-13-01,2027-01-01"]
)
def test_nonsense_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith("range")


@given(start=st.integers(-(10**15), 10**16), length=st.integers(1, 10**15))
def test_buckets_cover_the_range_and_are_few(start: int, length: int) -> None:
    span = resolve(parse(f"{start},{start + length}"), NOW)
    assert 1 <= span.buckets() <= MAX_BUCKETS + 2
    assert span.first_bucket_s * US <= span.start_us
    assert span.first_bucket_s + span.buckets() * span.step_s >= span.end_us / US - 1e-6


@pytest.mark.parametrize("seconds", QUICK.values())
def test_quick_ranges_have_nice_steps(seconds: int) -> None:
    assert seconds / MAX_BUCKETS <= step_for(seconds) <= max(2, seconds / 50)
    assert seconds % step_for(seconds) == 0 or 86_400 % step_for(seconds) == 0
