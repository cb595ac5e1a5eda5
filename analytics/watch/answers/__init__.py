"""The functions that answer, one file per page."""

from analytics.watch import complete as complete
from analytics.watch.answers import anomalies as anomalies
from analytics.watch.answers import applications as applications
from analytics.watch.answers import firing as firing
from analytics.watch.answers import flows as flows
from analytics.watch.answers import health as health
from analytics.watch.answers import host as host
from analytics.watch.answers import hosts as hosts
from analytics.watch.answers import incidents as incidents
from analytics.watch.answers import overview as overview
from analytics.watch.answers import packets as packets
from analytics.watch.answers import state as state
from analytics.watch.answers import unusual as unusual
